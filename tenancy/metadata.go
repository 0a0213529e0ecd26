package tenancy

import (
	"context"
	"strings"
	"time"

	"github.com/luminate/luminate/storage"
)

// familySuffixes are what the series of a metric family add to its name.
var familySuffixes = []string{"_bucket", "_count", "_sum", "_total", "_created", "_info"}

// metadataOf lists the metadata of one tenant, for a narrowed token only of the
// metrics of which it sees a series.
func (s *guarded) metadataOf(ctx context.Context, t storage.Tenant, id Identity, q storage.MetadataQuery) ([]storage.Metadata, error) {
	if len(id.Matchers) == 0 {
		return s.next.Metadata(ctx, t, q)
	}
	visible, err := s.visibleMetrics(ctx, t, id)
	if err != nil {
		return nil, err
	}
	limit := q.Limit
	q.Limit = 0
	all, err := s.next.Metadata(ctx, t, q)
	if err != nil {
		return nil, err
	}
	var out []storage.Metadata
	metrics, last := 0, ""
	for _, m := range all {
		if !visible[m.Metric] {
			continue
		}
		if m.Metric != last || metrics == 0 {
			metrics, last = metrics+1, m.Metric
		}
		if limit > 0 && metrics > limit {
			break
		}
		out = append(out, m)
	}
	return out, nil
}

// visibleMetrics returns the names, and the names of the families, of the metrics
// of which the identity sees a series.
func (s *guarded) visibleMetrics(ctx context.Context, t storage.Tenant, id Identity) (map[string]bool, error) {
	names, err := s.next.LabelValues(ctx, t, storage.MetricName, storage.Selection{
		Matchers: id.Matchers, MinT: 0, MaxT: time.Now().Add(24 * time.Hour).UnixMilli(),
	})
	if err != nil {
		return nil, err
	}
	visible := map[string]bool{}
	for _, n := range names {
		visible[n] = true
		for _, suffix := range familySuffixes {
			if family, ok := strings.CutSuffix(n, suffix); ok {
				visible[family] = true
			}
		}
	}
	return visible, nil
}
