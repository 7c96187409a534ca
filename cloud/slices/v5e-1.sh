# One host with one chip.
# shellcheck shell=bash disable=SC2034
accelerator=v5litepod-1
runtime=v2-alpha-tpuv5-lite
spot=
