package clickhouse

import (
	"context"
	"errors"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/luminate/luminate/storage"
)

// firstBackoff is the pause before the second try of a block; it doubles.
const firstBackoff = 100 * time.Millisecond

// sendBlock stores a block: its series first, then its rows. A try that may have
// landed is repeated with the same token, so it is stored once.
func (s *Store) sendBlock(b *block) {
	begin := time.Now()
	b.err = s.tryBlock(b)
	pause := firstBackoff
	for try := 0; try < s.cfg.InsertRetries && retryable(b.err); try++ {
		s.metrics.retries.Inc()
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.stop: // closing: once more at once
			timer.Stop()
			try = s.cfg.InsertRetries
		}
		pause *= 2
		b.err = s.tryBlock(b)
	}
	s.metrics.blockSeconds.Observe(time.Since(begin).Seconds())
	result := "ok"
	switch {
	case b.err == nil:
		s.metrics.rows.WithLabelValues(kindTables[b.kind]).Add(float64(b.count))
	case errors.Is(b.err, errStaleCache):
		result = "stale"
	default:
		result = "error"
		s.log.Warn("block was not stored", "table", kindTables[b.kind], "rows", b.count, "err", b.err)
	}
	s.metrics.blocks.WithLabelValues(kindTables[b.kind], result).Inc()
}

// retryable tells whether the same block may yet succeed.
func retryable(err error) bool {
	if err == nil || errors.Is(err, errStaleCache) {
		return false
	}
	k := storage.KindOf(err)
	return k == storage.KindUnavailable || k == storage.KindTimeout
}

func (s *Store) tryBlock(b *block) error {
	ctx, cancel := detached(s.cfg.InsertTimeout)
	defer cancel()
	return translate(ctx, "append", s.storeBlock(ctx, b))
}

func (s *Store) storeBlock(ctx context.Context, b *block) error {
	// Read after every append of the block began: so a delete that was answered before
	// is seen, and the series rows that it removed are stored again.
	epochs, err := s.readEpochs(ctx)
	if err != nil {
		return err
	}
	for set := range b.sets {
		if epochs[set.tenant] != set.epoch {
			s.series.setEpochs(epochs)
			s.discovery.changed(set.tenant)
			return errStaleCache
		}
	}
	sh := s.shards[b.shard]
	if len(b.series) > 0 {
		if err := s.storeSeries(ctx, sh, b); err != nil {
			return err
		}
	}
	err = s.insertBlock(ctx, sh, render("write/insert_"+kindTables[b.kind], nil), b.token, b.columns())
	if err != nil {
		return err
	}
	known := map[*tenantSeries][]uint64{}
	for _, n := range b.series {
		known[n.set] = append(known[n.set], n.key)
	}
	for set, ks := range known {
		s.series.add(set, ks)
	}
	return nil
}

// storeSeries stores the rows of the series that are new on the block's day. Each
// try has a token of its own: a repeated row replaces itself.
func (s *Store) storeSeries(ctx context.Context, sh *shard, b *block) error {
	err := s.insertBlock(ctx, sh, render("write/insert_series", nil), newToken(), b.seriesColumns())
	told := ""
	for i := range b.series { // on an error too: the rows may be there
		if tenant := b.series[i].tenant; tenant != told {
			s.discovery.changed(tenant)
			told = tenant
		}
	}
	if err == nil {
		s.metrics.rows.WithLabelValues("series").Add(float64(len(b.series)))
	}
	return err
}

// seriesColumns returns the rows of table series that the block needs.
func (b *block) seriesColumns() proto.Input {
	var tenants, metrics, names dictionary
	n := len(b.series)
	locs, ids, days := make(proto.ColUInt32, n), make(proto.ColUInt64, n), make(proto.ColInt32, n)
	ends := make(proto.ColUInt64, n)
	var kv proto.ColStr
	for i := range b.series {
		row := &b.series[i]
		tenants.add(row.tenant, 1)
		metrics.add(row.metric, 1)
		locs[i], ids[i], days[i] = row.loc, row.id, int32(b.day)
		for name, value := range row.labels.All() {
			names.add(name, 1)
			from := len(kv.Buf)
			kv.Buf = storage.AppendLabel(kv.Buf, name, value)
			kv.Pos = append(kv.Pos, proto.Position{Start: from, End: len(kv.Buf)})
		}
		ends[i] = uint64(len(kv.Pos))
	}
	return proto.Input{
		{Name: "tenant", Data: tenants.column()}, {Name: "metric", Data: metrics.column()},
		{Name: "loc", Data: locs}, {Name: "series_id", Data: ids}, {Name: "day", Data: days},
		{Name: "names", Data: lists{ends: ends, values: names.column()}}, {Name: "kv", Data: lists{ends: ends, values: kv}},
		{Name: "retention_days", Data: constant(b.class, n)},
	}
}

// readEpochs reads the last delete of each tenant.
func (s *Store) readEpochs(ctx context.Context) (map[string]int64, error) {
	epochs := map[string]int64{}
	err := s.each(ctx, s.home(), render("read/epochs", nil), nil, func(r driver.Rows) error {
		var tenant string
		var epoch int64
		err := r.Scan(&tenant, &epoch)
		epochs[tenant] = epoch
		return err
	})
	return epochs, err
}

// partsInterval is the time between looks at the number of parts.
const partsInterval = 5 * time.Second

// watchParts lengthens the flush age while partitions have many parts, and shortens
// it again: so any number of processes together leaves the merges time.
func (s *Store) watchParts() {
	tick := time.NewTicker(partsInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		n, err := s.maxParts()
		if err != nil {
			continue // the writes will say so
		}
		s.metrics.activeParts.Set(float64(n))
		age := nextFlushAge(time.Duration(s.buffer.age.Load()), int(n), s.cfg)
		s.buffer.age.Store(int64(age))
		s.metrics.flushAge.Set(age.Seconds())
	}
}

// nextFlushAge is the controller: double above the mark, three quarters below half of it.
func nextFlushAge(age time.Duration, parts int, cfg Config) time.Duration {
	switch {
	case parts > cfg.PartsHigh:
		return min(2*age, cfg.FlushAgeMax)
	case parts < cfg.PartsHigh/2:
		return max(age*3/4, cfg.FlushAge)
	default:
		return age
	}
}

func (s *Store) maxParts() (most uint64, err error) {
	ctx, cancel := detached(partsInterval)
	defer cancel()
	for _, sh := range s.shards {
		err = errors.Join(err, s.each(ctx, sh, render("read/parts", nil), nil, func(r driver.Rows) error {
			var n uint64
			err := r.Scan(&n)
			most = max(most, n)
			return err
		}))
	}
	return most, err
}
