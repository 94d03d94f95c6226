module mcs.internal/xtask/runtime

go 1.26.0
