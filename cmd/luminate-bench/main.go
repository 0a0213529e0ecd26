package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "luminate-bench", Short: "Measure Luminate and its peers on the same bytes",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(compareCommand(), loadCommand(), exampleCommand(), soakCommand(), partsCommand(), clickhouseCommand(), chaosCommand(), growthCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "luminate-bench:", err)
		os.Exit(1)
	}
}
