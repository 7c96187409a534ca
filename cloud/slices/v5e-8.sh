# One host with eight chips.
# shellcheck shell=bash disable=SC2034
accelerator=v5litepod-8
runtime=v2-alpha-tpuv5-lite
spot=
