package remote

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"golang.org/x/sync/errgroup"

	"github.com/luminate/luminate/storage"
)

// TestRequestsDoNotShareMemory: requests use pooled memory over and over, in parallel
// and in every protocol; nothing of one may show up in another, and nothing that is
// stored may change when its request's memory is used again.
func TestRequestsDoNotShareMemory(t *testing.T) {
	const writers, rounds = 6, 25
	s := newStack(t)
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			for round := range rounds {
				if err := s.writeRound(w, round); err != nil {
					return fmt.Errorf("writer %d, round %d: %w", w, round, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	stored := map[string]storage.Series{}
	for _, x := range s.stored() {
		stored[x.Labels.String()] = x
	}
	help := map[string]string{}
	for _, m := range s.metadata() {
		help[m.Metric] = m.Help
	}
	for w := range writers {
		for _, protocol := range []string{"v1", "v2", "otlp"} {
			name := fmt.Sprintf("%s_%d", protocol, w)
			x, ok := stored[roundLabels(name, w).String()]
			if !ok || len(x.Samples) != rounds {
				t.Fatalf("%s has %d samples", name, len(x.Samples))
			}
			for round, sample := range x.Samples {
				if sample.T != s.now+int64(round) || sample.V != float64(w*1000+round) {
					t.Errorf("%s, round %d: %+v", name, round, sample)
				}
			}
			if help[name] != "help of "+name {
				t.Errorf("%s is described as %q", name, help[name])
			}
		}
	}
	if len(stored) != 3*writers {
		t.Errorf("%d series stored, want %d", len(stored), 3*writers)
	}
	for _, x := range s.exemplars() {
		for _, e := range x.Exemplars {
			if want := fmt.Sprintf("%s/%d", x.Labels.Metric(), e.T-s.now); e.Labels.Get("trace_id") != want {
				t.Errorf("exemplar of %s is of %s", want, e.Labels.Get("trace_id"))
			}
		}
	}
}

// roundLabels are longer for some writers, so that the memory of one request does not
// fit the next.
func roundLabels(name string, writer int) storage.Labels {
	return storage.LabelsFromStrings("__name__", name, "pad", strings.Repeat(fmt.Sprint(writer), 1+97*writer))
}

// writeRound sends one request of each protocol, the first two with a bad series too.
func (s *stack) writeRound(writer, round int) error {
	ts, v := s.now+int64(round), float64(writer*1000+round)
	name := fmt.Sprintf("v1_%d", writer)
	var labels []prompb.Label
	for n, value := range roundLabels(name, writer).All() {
		labels = append(labels, prompb.Label{Name: n, Value: value})
	}
	sample := []prompb.Sample{{Timestamp: ts, Value: v}}
	w := s.writeV1(&prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{{Labels: labelsV1("bad", name), Samples: sample}, {Labels: labels, Samples: sample,
			Exemplars: []prompb.Exemplar{{Labels: labelsV1("trace_id", fmt.Sprintf("%s/%d", name, round)), Timestamp: ts}}}},
		Metadata: []prompb.MetricMetadata{{MetricFamilyName: name, Help: "help of " + name}},
	})
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `{bad="`+name+`"}`) {
		return fmt.Errorf("%d %s", w.Code, w.Body)
	}
	name = fmt.Sprintf("v2_%d", writer)
	b := newV2()
	series := v2Sample(ts, v)
	series.Exemplars = []writev2.Exemplar{{LabelsRefs: b.refs("trace_id", fmt.Sprintf("%s/%d", name, round)), Timestamp: ts}}
	series.Metadata = writev2.Metadata{Type: 1, HelpRef: b.refs("help of " + name)[0]}
	b.add(v2Sample(ts, v), "bad", name)
	b.add(series, "__name__", name, "pad", roundLabels(name, writer).Get("pad"))
	if w = s.writeV2(b.build()); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `{bad="`+name+`"}`) {
		return fmt.Errorf("%d %s", w.Code, w.Body)
	}
	name = fmt.Sprintf("otlp_%d", writer)
	o := newOTLP(s)
	o.md.ResourceMetrics().At(0).Resource().Attributes().Clear()
	dp := o.gauge(name, v)
	dp.SetTimestamp(dp.Timestamp() + pcommon.Timestamp(round)*1_000_000)
	dp.Attributes().PutStr("pad", roundLabels(name, writer).Get("pad"))
	o.sm.Metrics().At(0).SetDescription("help of " + name)
	if points, message := s.sendOTLP(o); points != 0 {
		return fmt.Errorf("rejected %d: %s", points, message)
	}
	return nil
}
