package clickhouse

import (
	"context"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// insertSettings are those of an INSERT. Asynchronous inserts are the server's
// default in newer versions and would answer for data that a crash still loses.
// There is always a token: without one the hash of the content decides, and that
// swallows a series row which is stored again after a delete.
func insertSettings(token string) clickhouse.Settings {
	set := clickhouse.Settings{
		"async_insert": 0, "max_partitions_per_insert_block": 0,
		"insert_deduplicate": 1, "insert_deduplication_token": token,
	}
	return set
}

// insertBlock sends one block of columns. ch-go writes them from where they lie, where
// clickhouse-go would copy them and go through reflection row by row.
func (s *Store) insertBlock(ctx context.Context, sh *shard, statement, token string, columns proto.Input) error {
	c, err := sh.write.get(ctx)
	if err != nil {
		return err
	}
	defer sh.write.put(c)
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	settings := insertSettings(token)
	for k, v := range c.pool.opts.Settings { // of the DSN, such as insert_quorum
		if _, ours := settings[k]; !ours {
			settings[k] = v
		}
	}
	rows := 0
	err = c.doColumns(ctx, ch.Query{Body: statement + " FORMAT Native", Settings: columnSettings(settings), Input: columns}, &rows)
	if err != nil {
		c.resetColumns() // after an exception too: part of the block may be on the way still
	}
	return err
}

// insert sends a few rows by columns, the small tables' way.
func (s *Store) insert(ctx context.Context, sh *shard, statement, token string, columns []any) error {
	c, err := sh.write.get(ctx)
	if err != nil {
		return err
	}
	defer sh.write.put(c)
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	return c.fresh(ctx, func() error { return c.sendBatch(ctx, statement, token, columns) })
}

func (c *conn) sendBatch(ctx context.Context, statement, token string, columns []any) error {
	b, err := c.drv.PrepareBatch(clickhouse.Context(context.WithoutCancel(ctx), clickhouse.WithSettings(insertSettings(token))), statement)
	if err != nil {
		return err
	}
	defer b.Close()
	for i, col := range columns {
		if err := b.Column(i).Append(col); err != nil {
			return err
		}
	}
	return b.Send()
}
