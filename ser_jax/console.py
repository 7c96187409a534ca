"""The console scripts: `ser-train` is `python -m ser_jax.main`, and so on."""

import functools
import runpy


def _run(module: str) -> None:
    runpy.run_module(module, run_name='__main__', alter_sys=True)  # signals are handled first


train = functools.partial(_run, 'ser_jax.main')
predict = functools.partial(_run, 'ser_jax.predict')
report = functools.partial(_run, 'ser_jax.report')
demo = functools.partial(_run, 'ser_jax.demo')
