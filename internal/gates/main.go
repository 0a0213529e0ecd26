package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: gates test [go test arguments] | cover [-floor PERCENT] PROFILE... | fuzz [-time DURATION] [-jobs N] [PACKAGES]")

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	switch args[0] {
	case "test":
		return runTests(ctx, args[1:], out)
	case "cover":
		return runCover(args[1:], out)
	case "fuzz":
		return runFuzz(ctx, args[1:], out)
	default:
		return errUsage
	}
}
