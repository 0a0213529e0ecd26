package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/spf13/cobra"
)

// schemaCommand shows and applies the ClickHouse tables, for those who do not let
// the server do it (storage.clickhouse.migrateSchema: false).
func schemaCommand(env []string) *cobra.Command {
	cmd := &cobra.Command{Use: "schema", Short: "Print, compare or apply the ClickHouse schema"}
	sub := func(use, short string, run func(ctx context.Context, c clickhouse.Config) ([]string, error)) {
		c := &cobra.Command{
			Use: use, Short: short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, _, err := loadConfig(cmd.Flags(), env)
				if err != nil {
					return err
				}
				if cfg.Storage.Backend != "clickhouse" {
					return errors.New("storage.backend is not clickhouse")
				}
				statements, err := run(cmd.Context(), clickhouseConfig(&cfg))
				for _, s := range statements {
					fmt.Fprintln(cmd.OutOrStdout(), s+";")
				}
				return err
			},
		}
		addConfigFlags(c.Flags())
		cmd.AddCommand(c)
	}
	sub("print", "Print every statement, without connecting", func(_ context.Context, c clickhouse.Config) ([]string, error) {
		return clickhouse.SchemaPrint(c)
	})
	sub("diff", "Print the statements that are still to be applied", clickhouse.SchemaDiff)
	sub("apply", "Apply what is missing; safe to repeat, and when several processes do it at once", func(ctx context.Context, c clickhouse.Config) ([]string, error) {
		return nil, clickhouse.SchemaApply(ctx, c)
	})
	return cmd
}
