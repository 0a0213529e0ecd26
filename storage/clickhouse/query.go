package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// params collects the values of a statement; each method returns the placeholder to
// put into the text.
type params struct{ args []any }

func (p *params) bind(value any, typ string) string {
	name := fmt.Sprintf("p%d", len(p.args))
	p.args = append(p.args, clickhouse.Named(name, value))
	return "{" + name + ":" + typ + "}"
}

func (p *params) str(v string) string    { return p.bind(v, "String") }
func (p *params) u64(v uint64) string    { return p.bind(v, "UInt64") }
func (p *params) u32(v uint32) string    { return p.bind(v, "UInt32") }
func (p *params) i64(v int64) string     { return p.bind(v, "Int64") }
func (p *params) f64(v float64) string   { return p.bind(v, "Float64") }
func (p *params) strs(v []string) string { return p.bind(v, "Array(String)") }
func (p *params) u64s(v []uint64) string { return p.bind(v, "Array(UInt64)") }
func (p *params) u32s(v []uint32) string { return p.bind(v, "Array(UInt32)") }

// time returns a DateTime64(3) of Unix milliseconds, clamped to what the type holds.
func (p *params) time(ms int64) string {
	return "fromUnixTimestamp64Milli(" + p.i64(clampTime(ms)) + ", 'UTC')"
}

// minTime and maxTime bound DateTime64(3): 1900 to 2299.
const (
	minTime = -2_208_988_800_000
	maxTime = 10_413_791_999_999
)

func clampTime(ms int64) int64 { return min(max(ms, minTime), maxTime) }

// rows is the answer to a statement. Close it before the connection is used again.
type rows struct {
	driver.Rows
	c    *conn
	stop func() bool
	done bool
}

// Next is driver.Rows' and remembers the end.
func (r *rows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.done = true
	return false
}

// close gives the connection back. An answer that was not read to its end is cut off
// by closing the socket first: draining it could take as long as the query.
func (r *rows) close() error {
	r.stop()
	broken := !r.done || r.Err() != nil
	if broken {
		r.c.interrupt()
	}
	err := r.Rows.Close()
	if broken {
		r.c.reset()
	}
	r.c.pool.put(r.c)
	return err
}

// query runs a reading statement on a shard.
func (s *Store) query(ctx context.Context, sh *shard, sql string, args []any) (*rows, error) {
	c, err := sh.read.get(ctx)
	if err != nil {
		return nil, err
	}
	// The driver never sees the cancellation, see pool.
	stop := context.AfterFunc(ctx, c.interrupt)
	qctx := clickhouse.Context(context.WithoutCancel(ctx), clickhouse.WithSettings(s.readSettings(ctx)))
	var r driver.Rows
	began, result := time.Now(), "ok"
	err = c.fresh(ctx, func() error {
		r, err = c.drv.Query(qctx, sql, args...)
		return err
	})
	if err != nil {
		result = "error"
	}
	s.metrics.querySeconds.WithLabelValues(result).Observe(time.Since(began).Seconds())
	if err != nil {
		stop()
		sh.read.put(c)
		return nil, err
	}
	return &rows{Rows: r, c: c, stop: stop}, nil
}

// fresh runs f, and once more over a new connection if an old one turns out to be
// broken: the server may have been restarted since. All that we send may be repeated.
func (c *conn) fresh(ctx context.Context, f func() error) error {
	used := c.used
	c.used = true
	err := f()
	if err == nil {
		return nil
	}
	c.recover(err)
	if !used || c.drv != nil || ctx.Err() != nil {
		return err
	}
	if oerr := c.open(); oerr != nil {
		return oerr
	}
	c.used = true
	if err = f(); err != nil {
		c.recover(err)
	}
	return err
}

// recover resets the connection unless the error is an answer of the server.
func (c *conn) recover(err error) {
	var ex *clickhouse.Exception
	if !errors.As(err, &ex) || ex.Code == codeAuthenticationError {
		c.reset()
	}
}

// each runs a statement and calls scan for every row.
func (s *Store) each(ctx context.Context, sh *shard, sql string, args []any, scan func(r driver.Rows) error) (err error) {
	r, err := s.query(ctx, sh, sql, args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for r.Next() {
		if err := scan(r); err != nil {
			return err
		}
	}
	return r.Err()
}

// exec runs a statement that answers nothing.
func (s *Store) exec(ctx context.Context, sh *shard, sql string, args []any, settings clickhouse.Settings) error {
	c, err := sh.write.get(ctx)
	if err != nil {
		return err
	}
	defer sh.write.put(c)
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	return c.fresh(ctx, func() error {
		return c.drv.Exec(clickhouse.Context(context.WithoutCancel(ctx), clickhouse.WithSettings(settings)), sql, args...)
	})
}

// readSettings are the limits that go with every reading statement.
func (s *Store) readSettings(ctx context.Context) clickhouse.Settings {
	limit := s.cfg.QueryTimeout
	if d, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(d))
	}
	set := clickhouse.Settings{
		// Rounded up, so that a connection seldom has to be told another value.
		"max_execution_time":                          int(math.Ceil(max(1, limit.Seconds())/5) * 5),
		"timeout_overflow_mode":                       "throw",
		"distributed_product_mode":                    "deny",
		"max_result_rows":                             s.cfg.MaxResultRows,
		"result_overflow_mode":                        "throw",
		"max_query_size":                              64 << 20,
		"max_bytes_before_external_group_by":          s.cfg.MaxQueryMemory / 2,
		"max_bytes_before_external_sort":              s.cfg.MaxQueryMemory / 2,
		"optimize_aggregation_in_order":               0,
		"do_not_merge_across_partitions_select_final": 1,
	}
	if s.cfg.MaxQueryMemory > 0 {
		set["max_memory_usage"] = s.cfg.MaxQueryMemory
	}
	if s.cfg.MaxRowsToRead > 0 {
		set["max_rows_to_read"] = s.cfg.MaxRowsToRead
	}
	if s.cfg.MaxThreads > 0 {
		set["max_threads"] = s.cfg.MaxThreads
	}
	return set
}
