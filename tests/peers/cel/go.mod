module crossdock/cel

go 1.26.0

require cel.dev/cel-go v0.33.2 // indirect
