package clickhouse

import (
	"context"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// Exchange implements storage.Store, over a table of the home shard. What one replica
// has, another shows only once it was copied: there a note may come later than its
// call.
func (s *Store) Exchange(ctx context.Context, post storage.Note, since time.Time) ([]storage.Note, error) {
	if err := s.open(ctx, "exchange"); err != nil {
		return nil, err
	}
	if len(post.Body) > 0 {
		err := s.insert(ctx, s.home(), render("write/insert_notes", nil), newToken(), []any{
			[]string{post.Process}, []uint64{post.Seq}, []string{string(post.Body)},
		})
		if err != nil {
			return nil, translate(ctx, "exchange", err)
		}
	}
	var p params
	sql := render("read/notes", fragments{
		"Own": p.str(post.Process), "Since": "fromUnixTimestamp64Micro(" + p.i64(since.UnixMicro()) + ", 'UTC')", "Life": p.i64(int64(storage.NoteLife.Seconds())),
	})
	var out []storage.Note
	err := s.each(ctx, s.home(), sql, p.args, func(r driver.Rows) error {
		var n storage.Note
		var body string
		err := r.Scan(&n.Process, &n.Seq, &n.At, &body)
		if body != "" {
			n.Body = []byte(body)
		}
		out = append(out, n)
		return err
	})
	if err != nil {
		return nil, translate(ctx, "exchange", err)
	}
	return out, nil
}
