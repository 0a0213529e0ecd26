package promql

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// sweepQueries goes through the language: every operator, function and modifier over
// floats, classic and native histograms, in the manner of Prometheus's compliance
// tester. What leaves the choice among equals open (topk of ties) is not in it.
func sweepQueries() (out []string) {
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	const counter, gauge = "http_requests_total", "temperature"
	selectors := []string{counter, gauge, "latency_bucket", "native", "custom", "stale_metric", `{"http.server.duration"}`}
	for _, s := range selectors {
		add("%s", s)
		add("-%s", s)
		for _, offset := range []string{"1m", "7m", "-1m", "2h"} {
			add("%s offset %s", s, offset)
		}
		add("%s @ start()", s)
		add("%s @ end() offset 3m", s)
		add("absent(%s)", s)
		add("timestamp(%s)", s)
		add("count(%s)", s)
	}
	for _, m := range []string{`{job="api"}`, `{job!="api"}`, `{job=~"a.*|x"}`, `{job!~"a.*"}`, `{nothing=""}`, `{code="404"}`, `{job="api",instance=~".+",code!~"2.."}`} {
		add("%s%s", counter, m)
	}
	for _, agg := range []string{"sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "quantile", "count_values"} {
		arg := map[string]string{"topk": "1, ", "quantile": "0.3, ", "count_values": `"v", `}[agg]
		for _, by := range []string{"", " by ()", " by (job)", " by (instance, code)", " by (nothing)", " without ()", " without (code)", " without (job, instance, code)"} {
			add("%s%s (%s%s)", agg, by, arg, counter)
		}
		add("%s by (job) (%srate(%s[5m]))", agg, arg, counter)
		add("%s(%s%s)", agg, arg, gauge)
		add("%s(%snothing)", agg, arg)
	}
	for _, q := range []string{"0", "0.5", "1", "1.5", "-1", "NaN"} {
		add("quantile by (job) (%s, %s)", q, counter)
		add("quantile_over_time(%s, %s[5m])", q, gauge)
		add("histogram_quantile(%s, rate(latency_bucket[5m]))", q)
		add("histogram_quantile(%s, sum(rate(native[5m])))", q)
	}
	for _, f := range []string{"rate", "increase", "irate", "idelta", "delta", "deriv", "resets", "changes", "avg_over_time", "min_over_time", "max_over_time",
		"sum_over_time", "count_over_time", "last_over_time", "present_over_time", "absent_over_time", "stddev_over_time", "stdvar_over_time"} {
		for _, window := range []string{"20s", "1m", "5m", "1h"} {
			add("%s(%s[%s])", f, counter, window)
			add("%s(%s[%s])", f, gauge, window)
		}
		add("%s(%s[5m] offset 2m)", f, counter)
		add("%s(native[5m])", f)
		add("%s(stale_metric[2m])", f)
		add("sum by (job) (%s(%s[3m]))", f, counter)
		add("max_over_time(%s(%s[2m])[6m:30s])", f, counter)
	}
	for _, f := range []string{"abs", "ceil", "floor", "exp", "sqrt", "ln", "log2", "log10", "round", "sgn", "sin", "cos", "tan", "asin", "acos", "atan",
		"sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "deg", "rad", "sort", "sort_desc", "scalar"} {
		add("%s(%s)", f, gauge)
		add("%s(%s)", f, counter)
	}
	for _, f := range []string{"day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year"} {
		add("%s()", f)
		add("%s(%s)", f, counter)
	}
	for _, op := range []string{"+", "-", "*", "/", "%", "^", "==", "!=", "<", ">", "<=", ">=", "atan2"} {
		add("%s %s 7", counter, op)
		add("3.5 %s %s", op, gauge)
		add("%s %s ignoring (code) group_left () sum by (job, instance) (%s)", counter, op, counter)
		add("sum by (job) (%s) %s on (job) sum by (job) (%s offset 1m)", counter, op, counter)
		add("native %s 2", op)
		add("native %s on (instance) custom", op)
		if strings.ContainsAny(op, "=<>") {
			add("%s %s bool 100", counter, op)
			add("1 %s bool 2", op)
		} else {
			add("2 %s 3 %s 2", op, op)
		}
	}
	for _, op := range []string{"and", "or", "unless"} {
		add(`%s{code="200"} %s on (job) %s{code="500"}`, counter, op, counter)
		add("%s %s ignoring (room) vector(1)", gauge, op)
		add("%s %s (%s > 100)", counter, op, counter)
	}
	for _, s := range []string{"native", "custom", "rate(native[5m])", "sum(native)", "sum by (instance) (increase(custom[10m]))", gauge} {
		for _, f := range []string{"histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar"} {
			add("%s(%s)", f, s)
		}
		add("histogram_fraction(0, 2, %s)", s)
		add("histogram_quantile(0.9, %s)", s)
	}
	for _, q := range []string{
		"predict_linear(%s[10m], 600)", "predict_linear(%s[1m], -60)", "clamp(%s, 1, 5)", "clamp_min(%s, 3)", "clamp_max(%s, 3)", "round(%s, 5)", "round(%s, 0.3)",
		`label_replace(%s, "to", "<$1>", "instance", "(.)")`, `label_replace(%s, "job", "", "job", ".*")`, `label_join(%s, "all", "-", "job", "instance", "code")`,
		"vector(scalar(sum(%s)))", "(%s)", "%s * on () group_left () vector(2)", "time() - timestamp(%s)", "sum(%s) / count(%[1]s)", "max(%s) - min(%[1]s)",
		"sum(sum by (job) (rate(%s[5m])))", "avg_over_time(sum by (job) (rate(%s[1m]))[5m:15s])", "sum_over_time(%s[5m:1m] offset 1m)", "rate(%s[5m] @ end())",
		"%s unless %[1]s", "%s + ignoring (job) %[1]s", "absent_over_time(%s{job=\"none\"}[5m])", "count_over_time(%s[5m:17s])",
	} {
		add(q, counter)
		add(q, gauge)
	}
	return append(out, "1", "time()", "pi()", "vector(time())", `"text"`, "-1 ^ 2", "1e-3 > bool NaN", "Inf - Inf", "minute(vector(1e9))")
}

// TestSweepLikePrometheus asks them as range queries of a real Prometheus and of this
// package over the same data, read by the engine and pushed into the storage. Numbers
// may differ by 1e-9: the order of additions is open.
func TestSweepLikePrometheus(t *testing.T) {
	base := startPrometheus(t)
	end := time.Now().Truncate(time.Minute).UnixMilli() - 60_000
	data := sampleData(end)
	remoteWrite(t, base, data)
	queries := sweepQueries()
	ask := func(base, query string) exchange {
		return request{method: http.MethodPost, endpoint: "query_range", params: url.Values{
			"query": {query}, "start": {seconds(end - 1_400_000)}, "end": {seconds(end + 60_000)}, "step": {"70"},
		}}.do(t, base)
	}
	want := make([]exchange, len(queries))
	for i, q := range queries {
		want[i] = ask(base, q)
	}
	for name, store := range map[string]storage.Store{"model": storagetest.NewModel(), "badger": openBadger(t)} {
		appendAll(t, store, data)
		for _, minSeries := range []uint64{1000, 0} {
			srv := serve(t, store, func(c *Config) { c.PlannerMinSeries = minSeries })
			alike := 0
			for i, q := range queries {
				if d := diffAnswers(t, ask(srv.URL, q), want[i]); d != "" {
					t.Errorf("%s, pushed from %d series: %s: %s", name, minSeries, q, d)
				} else {
					alike++
				}
			}
			t.Logf("%s, pushed from %d series: %d of %d queries as Prometheus answers them", name, minSeries, alike, len(queries))
		}
	}
}

// diffAnswers tells how two answers differ, "" if they do not.
func diffAnswers(t *testing.T, got, want exchange) string {
	t.Helper()
	var g, w struct {
		envelope
		Data struct {
			ResultType string           `json:"resultType"`
			Result     []map[string]any `json:"result"`
		} `json:"data"`
	}
	for body, into := range map[*exchange]any{&got: &g, &want: &w} {
		if err := json.Unmarshal(body.body, into); err != nil {
			t.Fatalf("%v in %s", err, body.body)
		}
	}
	for _, msgs := range [][]string{g.Warnings, w.Warnings, g.Infos, w.Infos} {
		slices.Sort(msgs)
	}
	if got.status != want.status || g.ErrorType != w.ErrorType || g.Error != w.Error || !slices.Equal(g.Warnings, w.Warnings) || !slices.Equal(g.Infos, w.Infos) {
		return fmt.Sprintf("got %d %s %q %q %q, Prometheus %d %s %q %q %q",
			got.status, g.ErrorType, g.Error, g.Warnings, g.Infos, want.status, w.ErrorType, w.Error, w.Warnings, w.Infos)
	}
	if g.Data.ResultType != w.Data.ResultType || len(g.Data.Result) != len(w.Data.Result) {
		return fmt.Sprintf("got %d series of %s, Prometheus %d of %s", len(g.Data.Result), g.Data.ResultType, len(w.Data.Result), w.Data.ResultType)
	}
	for _, rows := range [][]map[string]any{g.Data.Result, w.Data.Result} {
		slices.SortFunc(rows, func(a, b map[string]any) int {
			return strings.Compare(fmt.Sprint(a["metric"]), fmt.Sprint(b["metric"]))
		})
	}
	for i := range g.Data.Result {
		if !alikeJSON(g.Data.Result[i], w.Data.Result[i]) {
			return fmt.Sprintf("got %v\nPrometheus %v", g.Data.Result[i], w.Data.Result[i])
		}
	}
	return ""
}

// alikeJSON compares decoded JSON; numbers, in strings or not, may differ a little.
func alikeJSON(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k := range x {
			if !alikeJSON(x[k], y[k]) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, alikeJSON)
	case float64:
		y, ok := b.(float64)
		return ok && nearFloats(x, y)
	case string:
		y, ok := b.(string)
		if !ok || x == y {
			return ok
		}
		f, errF := strconv.ParseFloat(x, 64)
		g, errG := strconv.ParseFloat(y, 64)
		return errF == nil && errG == nil && nearFloats(f, g)
	default:
		return a == b
	}
}

func nearFloats(a, b float64) bool {
	return a == b || math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b))
}
