package clickhouse

import (
	"context"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
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

// insert sends one block of whole columns.
func (s *Store) insert(ctx context.Context, sh *shard, statement, token string, columns []any) error {
	return s.insertBatch(ctx, sh, statement, token, func(b driver.Batch) error {
		for i, col := range columns {
			if err := b.Column(i).Append(col); err != nil {
				return err
			}
		}
		return nil
	})
}

// insertBatch sends one block that fill fills; fill may be called twice.
func (s *Store) insertBatch(ctx context.Context, sh *shard, statement, token string, fill func(driver.Batch) error) error {
	c, err := sh.write.get(ctx)
	if err != nil {
		return err
	}
	defer sh.write.put(c)
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	return c.fresh(ctx, func() error { return c.sendBatch(ctx, statement, token, fill) })
}

func (c *conn) sendBatch(ctx context.Context, statement, token string, fill func(driver.Batch) error) error {
	b, err := c.drv.PrepareBatch(clickhouse.Context(context.WithoutCancel(ctx), clickhouse.WithSettings(insertSettings(token))), statement)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := fill(b); err != nil {
		return err
	}
	return b.Send()
}
