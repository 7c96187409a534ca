# Four hosts with four chips each, which may be taken away at any moment.
# shellcheck shell=bash disable=SC2034
accelerator=v5litepod-16
runtime=v2-alpha-tpuv5-lite
spot=yes
