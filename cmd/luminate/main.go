package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker; a plain build says what module version or commit
// it is of.
var version = "dev"

func main() {
	if version == "dev" {
		version = moduleVersion()
	}
	if err := run(context.Background(), os.Args[1:], os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, "luminate:", err)
		os.Exit(1)
	}
}

// moduleVersion is the version that the Go toolchain recorded.
func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}

// run builds the program and runs one command:
//
//	       flags, env, YAML
//	              |
//	           Config ── Validate
//	              |
//	         openStore ── storage/badger | storage/clickhouse
//	              |
//	      tenancy.Wrap (limits, narrowing)
//	              |
//	remote    promql    native    probes
//	    \        |        |        /
//	       router + middleware
//	              |
//	 run group: listener, signals, reload, store
func run(ctx context.Context, args, env []string) error {
	root := rootCommand(env)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

func rootCommand(env []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "luminate",
		Short:         "A multi-tenant metrics store for high-cardinality data",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand(env), versionCommand(), checkConfigCommand(env), backupCommand(env), restoreCommand(env),
		migrateCommand(env), schemaCommand(env), tokenCommand(env))
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "luminate %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

func checkConfigCommand(env []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check-config",
		Short: "Read the configuration as serve would, and tell what is wrong with it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, warnings, err := loadConfig(cmd.Flags(), env)
			for _, w := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "the configuration is valid")
			return nil
		},
	}
	addConfigFlags(cmd.Flags())
	return cmd
}
