package native

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/luminate/luminate/storage"
)

// ms is the time of the documented examples, half a day before testNow.
const ms = 1735603200000

func TestWriteStoresMetrics(t *testing.T) {
	f := newFixture(t)
	w := f.write(`{"metrics": [
		{"name": "api_latency", "timestamp": 1735603200000, "value": 145.5, "dimensions": {"endpoint": "/api/users", "customer_id": "cust_123"}},
		{"name": "api_latency", "timestamp": "2024-12-31T00:00:01Z", "value": -1e3, "dimensions": {}},
		{"name": "api_latency", "value": 0, "dimensions": null, "timestamp": null}]}`)
	got := want[WriteResponse](t, w, 200)
	if got.Accepted != 3 || got.Rejected != 0 || got.Errors == nil {
		t.Errorf("answer %+v", got)
	}
	wantLines(t, f.stored(),
		`{__name__="api_latency"} 00:00:01.000 -1000`,
		`{__name__="api_latency"} 12:00:00.000 0`,
		`{__name__="api_latency", customer_id="cust_123", endpoint="/api/users"} 00:00:00.000 145.5`)
	if w.Body.String() != "{\"accepted\":3,\"rejected\":0,\"errors\":[]}\n" {
		t.Errorf("body %s", w.Body)
	}
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("stored\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// metric is one good metric but for a field that is replaced: "value", "1" makes
// {"name":"m","timestamp":…,"value":1}.
func metric(fields ...string) string {
	m := map[string]string{"name": `"m"`, "timestamp": fmt.Sprint(ms), "value": "1"}
	for i := 0; i < len(fields); i += 2 {
		m[fields[i]] = fields[i+1]
	}
	var b strings.Builder
	for _, k := range []string{"name", "timestamp", "value", "dimensions", "extra"} {
		if v := m[k]; v != "" {
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%q:%s", k, v)
		}
	}
	return "{" + b.String() + "}"
}

func TestWriteRefusesMetric(t *testing.T) {
	dims := func(n int) string {
		var b []string
		for i := range n {
			b = append(b, fmt.Sprintf(`"d%d":"x"`, i))
		}
		return "{" + strings.Join(b, ",") + "}"
	}
	long := func(n int) string { return `"` + strings.Repeat("a", n) + `"` }
	for _, c := range []struct {
		metric string
		code   Code
		says   string
	}{
		{metric("name", ""), CodeInvalidMetricName, "name is missing"},
		{metric("name", `""`), CodeInvalidMetricName, "empty"},
		{metric("name", `7`), CodeInvalidMetricName, "must be a string, it is a number"},
		{metric("name", `"0m"`), CodeInvalidMetricName, "begin with a letter"},
		{metric("name", `"a:b"`), CodeInvalidMetricName, "':' at position 1"},
		{metric("name", `"é"`), CodeInvalidMetricName, "begin with a letter"},
		{metric("name", `"__m"`), CodeInvalidMetricName, "reserved"},
		{metric("name", `"_tenant_id"`), CodeInvalidMetricName, "reserved"},
		{metric("name", long(257)), CodeInvalidMetricName, "257 bytes, at most 256"},
		{metric("value", ""), CodeInvalidValue, "value is missing"},
		{metric("value", `"1"`), CodeInvalidValue, "must be a number, it is a string"},
		{metric("value", `null`), CodeInvalidValue, "it is null"},
		{metric("value", `true`), CodeInvalidValue, "it is true"},
		{metric("value", `1e999`), CodeInvalidValue, "beyond the range"},
		{metric("value", `-1e999`), CodeInvalidValue, "beyond the range"},
		{metric("timestamp", `1735603200`), CodeInvalidTimestamp, "looks like seconds"},
		{metric("timestamp", `1735603200.25`), CodeInvalidTimestamp, "looks like seconds"},
		{metric("timestamp", `1735603200000000`), CodeInvalidTimestamp, "looks like microseconds"},
		{metric("timestamp", `1735603200000000000`), CodeInvalidTimestamp, "looks like nanoseconds"},
		{metric("timestamp", `1600000000`), CodeInvalidTimestamp, "looks like seconds"},
		{metric("timestamp", `0`), CodeInvalidTimestamp, "older than"},
		{metric("timestamp", `-1`), CodeInvalidTimestamp, "older than"},
		{metric("timestamp", fmt.Sprint(testNow.UnixMilli()-7*24*3600*1000-1)), CodeInvalidTimestamp, "older than 7d"},
		{metric("timestamp", fmt.Sprint(testNow.UnixMilli()+3600*1000+1)), CodeInvalidTimestamp, "more than 1h ahead"},
		{metric("timestamp", `1.5`), CodeInvalidTimestamp, "whole number"},
		{metric("timestamp", `1e400`), CodeInvalidTimestamp, "whole number"},
		{metric("timestamp", `"yesterday"`), CodeInvalidTimestamp, "RFC 3339"},
		{metric("timestamp", `{}`), CodeInvalidTimestamp, "it is an object"},
		{metric("dimensions", `[]`), CodeInvalidDimension, "it is an array"},
		{metric("dimensions", `{"a":1}`), CodeInvalidDimension, `dimension "a" must be a string, it is a number`},
		{metric("dimensions", `{"a":null}`), CodeInvalidDimension, "it is null"},
		{metric("dimensions", `{"a":{"b":["c"]}}`), CodeInvalidDimension, "it is an object"},
		{metric("dimensions", `{"a":""}`), CodeInvalidDimension, "is empty"},
		{metric("dimensions", `{"":"a"}`), CodeInvalidDimension, "is empty"},
		{metric("dimensions", `{"a-b":"c"}`), CodeInvalidDimension, "'-' at position 1"},
		{metric("dimensions", `{"__name__":"c"}`), CodeInvalidDimension, "reserved"},
		{metric("dimensions", `{"__x":"c"}`), CodeInvalidDimension, "reserved"},
		{metric("dimensions", `{"_tenant_id":"c"}`), CodeInvalidDimension, "reserved"},
		{metric("dimensions", `{"a":"1","b":"2","a":"1"}`), CodeInvalidDimension, `"a" stands twice`},
		{metric("dimensions", `{"a":"x\ny"}`), CodeInvalidDimension, "control character"},
		{metric("dimensions", `{"a":"x\u0000"}`), CodeInvalidDimension, "control character"},
		{metric("dimensions", "{\"a\":\"x\x7f\"}"), CodeInvalidDimension, "control character"},
		{metric("dimensions", `{"a":"x\u0085"}`), CodeInvalidDimension, "control character"},
		{metric("dimensions", "{\"a\":\"x\xff\"}"), CodeInvalidDimension, "not valid UTF-8"},
		{metric("dimensions", `{"a":"\ud800"}`), CodeInvalidDimension, "not valid UTF-8"},
		{metric("dimensions", `{"a":"\ud800\u0041"}`), CodeInvalidDimension, "not valid UTF-8"},
		{metric("dimensions", `{"a":`+long(257)+`}`), CodeInvalidDimension, "257 bytes, at most 256"},
		{metric("dimensions", `{`+long(129)+`:"a"}`), CodeInvalidDimension, "129 bytes, at most 128"},
		{metric("dimensions", dims(21)), CodeDimensionLimit, "21 dimensions, at most 20"},
		{metric("extra", `{"deep":[1,{"x":null}]}`), CodeInvalidJSON, `unknown field "extra"`},
		{`{"name":"m","value":1,"value":2}`, CodeInvalidJSON, `"value" stands twice`},
		{`[1]`, CodeInvalidJSON, "must be an object, it is an array"},
	} {
		f := newFixture(t)
		w := f.write(`{"metrics":[` + c.metric + `]}`)
		if e := wantError(t, w, 400, c.code); !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %q does not say %q", c.metric, e.Message, c.says)
		}
		// The good part of a batch is stored.
		w = f.write(`{"metrics":[` + metric("value", "5") + `,` + c.metric + `]}`)
		got := want[WriteResponse](t, w, 207)
		if got.Accepted != 1 || got.Rejected != 1 || got.Errors[0].Index != 1 || got.Errors[0].Code != c.code || !strings.Contains(got.Errors[0].Error, c.says) {
			t.Errorf("%s: %+v", c.metric, got)
		}
		if len(f.stored()) != 1 {
			t.Errorf("%s: stored %v", c.metric, f.stored())
		}
		if got := f.api.Refusals().List(f.id.Tenant); len(got) != 2 || got[0].Reason != string(c.code) {
			t.Errorf("%s: refusals %+v", c.metric, got)
		}
	}
}

func TestWriteAcceptsTheLimits(t *testing.T) {
	f := newFixture(t)
	var dims []string
	for i := range 20 {
		dims = append(dims, fmt.Sprintf("%q:%q", strings.Repeat("k", 126)+fmt.Sprintf("%02d", i), strings.Repeat("v", 256)))
	}
	name := strings.Repeat("n", 256)
	at := testNow.UnixMilli()
	w := f.write(fmt.Sprintf(`{"metrics":[{"name":%q,"timestamp":%d,"value":1,"dimensions":{%s}},{"name":%q,"timestamp":%d,"value":1.7976931348623157e308}]}`,
		name, at-7*24*3600*1000, strings.Join(dims, ","), name, at+3600*1000))
	if got := want[WriteResponse](t, w, 200); got.Accepted != 2 {
		t.Errorf("%+v", got)
	}
}

func TestWriteRefusesBody(t *testing.T) {
	good := metric()
	for _, c := range []struct {
		body   string
		status int
		code   Code
		says   string
	}{
		{``, 400, CodeInvalidJSON, "unexpected end"},
		{`  `, 400, CodeInvalidJSON, "unexpected end"},
		{`[]`, 400, CodeInvalidJSON, "expected an object"},
		{`null`, 400, CodeInvalidJSON, "expected an object"},
		{`{}`, 400, CodeInvalidJSON, `"metrics" is missing`},
		{`{"metrics":null}`, 400, CodeInvalidJSON, "must be an array"},
		{`{"metrics":{}}`, 400, CodeInvalidJSON, "must be an array"},
		{`{"metrics":[` + good + `]`, 400, CodeInvalidJSON, "unexpected end"},
		{`{"metrics":[` + good, 400, CodeInvalidJSON, "unexpected end"},
		{`{"metrics":[` + good + `,]}`, 400, CodeInvalidJSON, "found ']'"},
		{`{"metrics":[` + good + good + `]}`, 400, CodeInvalidJSON, "expected ',' or ']'"},
		{`{"metrics":[` + good + `]}x`, 400, CodeInvalidJSON, "after the end of the object"},
		{`{"metrics":[` + good + `]}{}`, 400, CodeInvalidJSON, "after the end of the object"},
		{`{"metrics":[` + good + `],}`, 400, CodeInvalidJSON, "expected a string"},
		{`{"metrics":[` + good + `],"metrics":[]}`, 400, CodeInvalidJSON, "stands twice"},
		{`{"metric":[` + good + `]}`, 400, CodeInvalidJSON, `unknown field "metric"`},
		{`{"metrics":[` + good + `],"tenant":"x"}`, 400, CodeInvalidJSON, `unknown field "tenant"`},
		{`{"metrics":[{"name":"m","value":NaN}]}`, 400, CodeInvalidJSON, "NaN and Infinity are not JSON"},
		{`{"metrics":[{"name":"m","value":Infinity}]}`, 400, CodeInvalidJSON, "NaN and Infinity are not JSON"},
		{`{"metrics":[{"name":"m","value":-Infinity}]}`, 400, CodeInvalidJSON, "expected a digit"},
		{`{"metrics":[{"name":"m","value":01}]}`, 400, CodeInvalidJSON, "must not begin with 0"},
		{`{"metrics":[{"name":"m","value":1.}]}`, 400, CodeInvalidJSON, "digit after the point"},
		{`{"metrics":[{"name":"m","value":1e}]}`, 400, CodeInvalidJSON, "digit of the exponent"},
		{`{"metrics":[{"name":"m","value":+1}]}`, 400, CodeInvalidJSON, "expected a value"},
		{`{"metrics":[{name:"m"}]}`, 400, CodeInvalidJSON, "expected a string"},
		{`{"metrics":[{"name":'m'}]}`, 400, CodeInvalidJSON, "expected a value"},
		{"{\"metrics\":[{\"name\":\"a\nb\"}]}", 400, CodeInvalidJSON, "control character"},
		{`{"metrics":[{"name":"\x"}]}`, 400, CodeInvalidJSON, "unknown escape"},
		{`{"metrics":[{"name":"\u12g4"}]}`, 400, CodeInvalidJSON, "hexadecimal"},
		{`{"metrics":[{"name":"m","extra":` + strings.Repeat("[", 100) + `}]}`, 400, CodeInvalidJSON, "nested too deeply"},
		{`{"metrics":[` + good + `],"source":7}`, 400, CodeInvalidJSON, "expected a string"},
		{`{"metrics":[` + good + `],"source":""}`, 400, CodeInvalidDimension, "source is empty"},
		{`{"metrics":[` + good + `],"source":"a\nb"}`, 400, CodeInvalidDimension, "control character"},
		{`{"metrics":[` + strings.Repeat(good+",", 10_000) + good + `]}`, 413, CodeBatchTooLarge, "more than 10000 metrics"},
		{`{"metrics":[` + strings.Repeat(" ", 10<<20) + `]}`, 413, CodeBatchTooLarge, "larger than 10485760 bytes"},
	} {
		f := newFixture(t)
		show := c.body[:min(len(c.body), 60)]
		if e := wantError(t, f.write(c.body), c.status, c.code); !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %q does not say %q", show, e.Message, c.says)
		}
		if got := f.stored(); len(got) != 0 {
			t.Errorf("%s: stored %v", show, got)
		}
	}
}

func TestWriteTakesOddButValidBodies(t *testing.T) {
	f := newFixture(t)
	for i, body := range []string{
		`{"metrics":[]}`,
		` { "metrics" : [ ] , "source" : "x" } ` + strings.Repeat("\n", 100_000),
		`{"metrics":[` + strings.Repeat(" ", 300_000) + metric() + strings.Repeat("\t", 300_000) + `]}`,
		`{"metrics":[` + metric("dimensions", `{"é`+strings.Repeat("x", 400_000)+`":"a"}`) + `,` + metric() + `]}`,
	} {
		if w := f.write(body); w.Code != 200 && w.Code != 207 {
			t.Errorf("body %d: %d %.200s", i, w.Code, w.Body)
		}
	}
	f = newFixture(t)
	f.write(`{"metrics":[` + metric("dimensions", `{"a":"q\"\\\/\u00e9\ud83d\ude00z"}`) + `]}`)
	wantLines(t, f.stored(), `{__name__="m", a="q\"\\/é😀z"} 00:00:00.000 1`)
}

func TestWriteMediaTypesAndEncodings(t *testing.T) {
	body := `{"metrics":[` + metric() + `]}`
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	_, _ = g.Write([]byte(body))
	_ = g.Close()
	z, _ := zstd.NewWriter(&zs, zstd.WithEncoderConcurrency(1))
	_, _ = z.Write([]byte(body))
	_ = z.Close()
	bomb := func() string {
		var b bytes.Buffer
		g := gzip.NewWriter(&b)
		_, _ = g.Write([]byte(`{"metrics":[`))
		for range 20 {
			_, _ = g.Write(bytes.Repeat([]byte(" "), 1<<20))
		}
		_ = g.Close()
		return b.String()
	}()
	for _, c := range []struct {
		name, body, typ, enc string
		status               int
	}{
		{"identity", body, "application/json", "identity", 200},
		{"charset", body, "application/json; charset=UTF-8", "", 200},
		{"gzip", gz.String(), "application/json", "gzip", 200},
		{"zstd", zs.String(), "application/json", "zstd", 200},
		{"ndjson", metric() + "\n" + metric("value", "2") + "\n", "application/x-ndjson", "", 200},
		{"gzip cut", gz.String()[:gz.Len()-12], "application/json", "gzip", 400},
		{"not gzip", body, "application/json", "gzip", 400},
		{"zstd cut", zs.String()[:zs.Len()-6], "application/json", "zstd", 400},
		{"not zstd", body, "application/json", "zstd", 400},
		{"gzip bomb", bomb, "application/json", "gzip", 413},
		{"snappy", body, "application/json", "snappy", 415},
		{"latin1", body, "application/json; charset=latin1", "", 415},
		{"text", body, "text/plain", "", 415},
		{"no type", body, "", "", 415},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			w := f.do("POST", "/api/v1/write", c.body, "Content-Type", c.typ, "Content-Encoding", c.enc)
			if w.Code != c.status {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if stored := len(f.stored()); (c.status == 200) != (stored > 0) {
				t.Errorf("stored %d", stored)
			}
		})
	}
}

func TestWriteLines(t *testing.T) {
	f := newFixture(t)
	body := "\n" + metric("value", "1") + "\r\n{broken\n  \n" + metric("value", "x") + "\n" + metric("value", `"2"`) + "\n" +
		metric("name", `"last"`, "value", "3") + "  "
	w := f.do("POST", "/api/v1/write?source=pod-7", body, "Content-Type", "application/x-ndjson")
	got := want[WriteResponse](t, w, 207)
	if got.Accepted != 2 || got.Rejected != 3 {
		t.Fatalf("%+v", got)
	}
	for i, c := range []struct {
		index int
		code  Code
		says  string
	}{{1, CodeInvalidJSON, "line 3: "}, {2, CodeInvalidJSON, "line 5: expected a value"}, {3, CodeInvalidValue, "line 6: value must be a number"}} {
		if e := got.Errors[i]; e.Index != c.index || e.Code != c.code || !strings.Contains(e.Error, c.says) {
			t.Errorf("error %d: %+v", i, e)
		}
	}
	wantLines(t, f.stored(),
		`{__name__="last", instance="pod-7"} 00:00:00.000 3`,
		`{__name__="m", instance="pod-7"} 00:00:00.000 1`)
	var b strings.Builder
	for range 10_001 {
		b.WriteString(metric() + "\n")
	}
	wantError(t, f.do("POST", "/api/v1/write", b.String(), "Content-Type", "application/x-ndjson"), 413, CodeBatchTooLarge)
}

func TestWriteSourceBecomesInstance(t *testing.T) {
	metrics := metric("dimensions", `{"job":"a"}`) + "," + metric("dimensions", `{"instance":"own"}`) + "," +
		metric("dimensions", `{"Zone":"z","abc":"1"}`)
	lines := []string{
		`{Zone="z", __name__="m", abc="1", instance="pod-7"} 00:00:00.000 1`,
		`{__name__="m", instance="own"} 00:00:00.000 1`,
		`{__name__="m", instance="pod-7", job="a"} 00:00:00.000 1`,
	}
	for _, body := range []string{`{"source":"pod-7","metrics":[` + metrics + `]}`, `{"metrics":[` + metrics + `],"source":"pod-7"}`} {
		f := newFixture(t)
		want[WriteResponse](t, f.write(body), 200)
		wantLines(t, f.stored(), lines...)
	}
}

func TestWriteSpreadsOneMillisecond(t *testing.T) {
	at := func(offset int, v string) string { return metric("timestamp", fmt.Sprint(ms+offset), "value", v) }
	body := `{"metrics":[` + strings.Join([]string{at(0, "1"), at(2, "9"), at(0, "2"), at(0, "3"), at(5, "8"), at(2, "7")}, ",") + `]}`
	f := newFixture(t)
	for range 2 { // the second lands on the first
		got := want[WriteResponse](t, f.write(body), 200)
		if got.Accepted != 6 || got.Adjusted != 3 {
			t.Fatalf("%+v", got)
		}
		wantLines(t, f.stored(),
			`{__name__="m"} 00:00:00.000 1`, `{__name__="m"} 00:00:00.001 2`, `{__name__="m"} 00:00:00.002 9`,
			`{__name__="m"} 00:00:00.003 3`, `{__name__="m"} 00:00:00.004 7`, `{__name__="m"} 00:00:00.005 8`)
	}
}

func TestWriteRefusesToSpreadFarther(t *testing.T) {
	f := newFixture(t)
	w := f.write(`{"metrics":[` + strings.Repeat(metric()+",", 1_099) + metric("timestamp", fmt.Sprint(ms+10)) + `]}`)
	got := want[WriteResponse](t, w, 207)
	// 1,000 free milliseconds after the first, less the one that another has.
	if got.Accepted != 1_001 || got.Rejected != 99 || got.Adjusted != 999 {
		t.Fatalf("%d accepted, %d rejected, %d adjusted", got.Accepted, got.Rejected, got.Adjusted)
	}
	if e := got.Errors[0]; e.Index != 1_000 || e.Code != CodeInvalidTimestamp || !strings.Contains(e.Error, "send a counter") {
		t.Errorf("%+v", e)
	}
}

func TestWriteNamesFirstHundredErrors(t *testing.T) {
	f := newFixture(t)
	got := want[WriteResponse](t, f.write(`{"metrics":[`+metric()+strings.Repeat(","+metric("value", "null"), 150)+`]}`), 207)
	if got.Rejected != 150 || len(got.Errors) != 100 || got.Errors[99].Index != 100 {
		t.Errorf("rejected %d, %d errors", got.Rejected, len(got.Errors))
	}
	if n := len(f.api.Refusals().List(f.id.Tenant)); n != 100 {
		t.Errorf("%d refusals kept", n)
	}
}

func TestWriteTellsWhatTheStorageRefused(t *testing.T) {
	// The storage keeps a day: older samples are refused by it, not by the API.
	f := newFixture(t)
	if err := f.store.SetRetention(t.Context(), f.id.Tenant, storage.RetentionPolicy{Metric: "m", Days: 1}); err != nil {
		t.Fatal(err)
	}
	old := testNow.UnixMilli() - 2*24*3600*1000
	got := want[WriteResponse](t, f.write(fmt.Sprintf(`{"metrics":[%s,%s,%s]}`, metric("name", `"n"`), metric("timestamp", fmt.Sprint(old)), metric())), 207)
	if got.Accepted != 2 || got.Rejected != 1 || got.Errors[0].Index != 1 || got.Errors[0].Code != CodeInvalidTimestamp || got.Errors[0].Metric != "m" {
		t.Errorf("%+v", got)
	}
}
