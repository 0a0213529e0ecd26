package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage/clickhouse"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// recorder is a registry that notes every metric that is registered, vectors
// without a child included.
type recorder struct {
	*prometheus.Registry
	found map[string]metricInfo
}

type metricInfo struct{ name, kind, help, labels string }

func newRecorder() *recorder {
	return &recorder{prometheus.NewRegistry(), map[string]metricInfo{}}
}

func (r *recorder) Register(c prometheus.Collector) error {
	r.note(c)
	return r.Registry.Register(c)
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		r.note(c)
	}
	r.Registry.MustRegister(cs...)
}

// descForm is how client_golang prints a Desc, the one way to read it.
var descForm = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "(.*?)"(?:, unit: "[^"]*")?, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func (r *recorder) note(c prometheus.Collector) {
	ch := make(chan *prometheus.Desc, 100)
	c.Describe(ch)
	close(ch)
	for d := range ch {
		m := descForm.FindStringSubmatch(d.String())
		if m == nil || !strings.HasPrefix(m[1], "luminate_") {
			continue
		}
		var labels []string
		for _, l := range strings.Split(m[3], ",") {
			if name, _, ok := strings.Cut(l, "="); ok {
				labels = append(labels, name)
			}
		}
		if m[4] != "" {
			labels = append(labels, strings.Split(m[4], ",")...)
		}
		slices.Sort(labels)
		r.found[m[1]] = metricInfo{m[1], kindOf(c, m[1]), m[2], strings.Join(labels, ", ")}
	}
}

// kindOf tells a metric's type; a collector of our own that has nothing yet follows
// the rule of names.
func kindOf(c prometheus.Collector, name string) string {
	switch c := c.(type) {
	case *prometheus.CounterVec:
		return "counter"
	case *prometheus.GaugeVec:
		return "gauge"
	case *prometheus.HistogramVec, prometheus.Histogram:
		return "histogram"
	case prometheus.Metric: // a gauge or counter by itself; a function's is not called
		var m dto.Metric
		if _, isFunc := c.(prometheus.GaugeFunc); isFunc && !strings.HasSuffix(name, "_total") {
			return "gauge"
		}
		if c.Write(&m) == nil && m.Gauge != nil {
			return "gauge"
		}
		return "counter"
	case interface{ Reset() }:
		panic(fmt.Sprintf("%s: a vector of an unknown type %T", name, c))
	}
	if strings.HasSuffix(name, "_total") {
		return "counter"
	}
	return "gauge"
}

// TestMetricsReference keeps deploy/metrics.md equal to what is registered by a
// server with everything on, on either backend.
func TestMetricsReference(t *testing.T) {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg := DefaultConfig()
	cfg.Storage.Badger.Dir = t.TempDir()
	cfg.Auth.JWTSecret = strings.Repeat("s", 32)
	cfg.Metrics.SelfScrape = true
	reg := newRecorder()
	registerProcess(reg, cfg.Storage.Backend, time.Now())
	app, err := newApp(t.Context(), &cfg, quiet, reg, newProbes("badger", time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := app.close(); err != nil {
			t.Error(err)
		}
	}()
	// Nobody answers there, but the metrics are registered before it is asked.
	ch := clickhouse.DefaultConfig()
	ch.DSN = "clickhouse://127.0.0.1:1/none"
	if _, err := clickhouse.Open(t.Context(), ch, quiet, reg); err == nil {
		t.Fatal("ClickHouse answers at port 1")
	}
	want := renderMetrics(reg.found)
	const path = "../../deploy/metrics.md"
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is registered; write it anew with `go test ./cmd/luminate -run Reference -update`", path)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		info, ok := reg.found[f.GetName()]
		if kind := strings.ToLower(f.GetType().String()); strings.HasPrefix(f.GetName(), "luminate_") && (!ok || info.kind != kind) {
			t.Errorf("%s is gathered as a %s and noted as %+v", f.GetName(), kind, info)
		}
	}
}

// metricSections are the prefixes of names, in the order of the page; the first
// that fits counts.
var metricSections = []struct{ prefix, title string }{
	{"luminate_badger_", "Badger (`storage/badger`)"},
	{"luminate_clickhouse_", "ClickHouse (`storage/clickhouse`)"},
	{"luminate_remote_", "Remote write, remote read, OTLP (`remote`)"},
	{"luminate_promql_", "PromQL (`promql`)"},
	{"luminate_native_", "The JSON API (`native`)"},
	{"luminate_tenancy_", "Tenants and limits (`tenancy`)"},
	{"luminate_auth_", "Authentication (`tenancy`)"},
	{"luminate_http_", "HTTP (`cmd/luminate`)"},
	{"luminate_", "The process and the census of series (`cmd/luminate`)"},
}

func renderMetrics(found map[string]metricInfo) []byte {
	var b bytes.Buffer
	b.WriteString(`# Luminate's own metrics

What ` + "`/metrics`" + ` tells, and what Luminate stores of itself with ` + "`metrics.selfScrape`" + `. A metric with labels appears
when one of its label values first does. Histograms have classic buckets; request durations are native histograms
too. Beside these there are the ` + "`go_`" + `, ` + "`process_`" + ` and ` + "`promhttp_`" + ` metrics of Prometheus's Go client. Labels are
bounded: routes are templates, reasons and codes are fixed lists, and tenants are at most 10,000, of which those idle
longest go first. Made by ` + "`go test ./cmd/luminate -run Reference -update`" + `.
`)
	left := maps.Clone(found)
	for _, s := range metricSections {
		fmt.Fprintf(&b, "\n## %s\n\n| Name | Type | Labels | Meaning |\n|---|---|---|---|\n", s.title)
		for _, name := range slices.Sorted(maps.Keys(left)) {
			if strings.HasPrefix(name, s.prefix) {
				m := left[name]
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labels, strings.ReplaceAll(m.help, "|", "\\|"))
				delete(left, name)
			}
		}
	}
	return b.Bytes()
}
