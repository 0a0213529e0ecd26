// Command gates judges what the build must pass; the Makefile and .ci/run call it:
//
//	go run ./internal/gates test [go test arguments]    runs the tests, tells the slowest
//	go run ./internal/gates cover -floor 80 PROFILE...   statements covered, by package
//	go run ./internal/gates fuzz -time 30s -jobs 2       every fuzz target
//
// Each ends with a status other than 0 if its gate is not passed. It is no part of the
// product and nothing imports it.
package main
