// Moves the cursor of each chart with its player; a click on a chart moves the player.
for (const recording of document.querySelectorAll('.recording')) {
  const player = recording.querySelector('audio'), chart = recording.querySelector('.chart');
  const cursor = chart.querySelector('.cursor'), view = chart.parentElement;
  const [left, right, seconds] = ['left', 'right', 'seconds'].map(name => Number(chart.dataset[name]));
  const place = () => {
    const x = left + (right - left) * Math.min(player.currentTime / seconds, 1);
    cursor.style.left = `${100 * x}%`;
    cursor.hidden = false;
    const pixels = x * chart.clientWidth;
    if (pixels < view.scrollLeft || pixels > view.scrollLeft + view.clientWidth)
      view.scrollLeft = pixels - view.clientWidth / 4;
  };
  const follow = () => { place(); if (!player.paused) requestAnimationFrame(follow); };
  player.addEventListener('play', follow);
  player.addEventListener('seeked', place);
  chart.addEventListener('click', event => {
    const box = chart.getBoundingClientRect(), x = (event.clientX - box.left) / box.width;
    player.currentTime = seconds * Math.min(Math.max((x - left) / (right - left), 0), 1);
  });
}
