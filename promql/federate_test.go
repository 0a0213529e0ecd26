package promql

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

func TestFederateText(t *testing.T) {
	store, now := storagetest.NewModel(), time.Now().UnixMilli()
	b := new(storage.Batch)
	ls := storage.LabelsFromStrings
	b.Add(ls("__name__", "b", "job", "x"), storage.Sample{T: now - 2000, V: 1}, storage.Sample{T: now - 1000, V: 2.5})
	b.Add(ls("__name__", "a", "instance", "i"), storage.Sample{T: now - 1000, V: math.Inf(1)})
	b.Add(ls("__name__", "a", "job", "gone"), storage.Sample{T: now - 1000, V: storage.StaleNaN})
	b.Add(ls("__name__", "a", "job", "old"), storage.Sample{T: now - 400_000, V: 1})
	appendAll(t, store, b)
	srv := serve(t, store, nil)
	resp, body := get(t, srv.URL+"/federate?match[]=a&match[]=b&match[]={__name__=~\"a|b\"}")
	ts := " " + strings.ReplaceAll(seconds(now-1000), ".", "") + "\n"
	want := "# TYPE a untyped\na{instance=\"i\"} +Inf" + ts + "# TYPE b untyped\nb{job=\"x\",instance=\"\"} 2.5" + ts
	if body != want || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("got %s\n%s\nwant\n%s", resp.Header.Get("Content-Type"), body, want)
	}
	if resp, _ := get(t, srv.URL+"/federate?match[]=a{"); resp.StatusCode != 400 {
		t.Errorf("bad selector: %d", resp.StatusCode)
	}
}

// TestFederateHistograms compares with what a real Prometheus federates.
func TestFederateHistograms(t *testing.T) {
	base := startPrometheus(t)
	end := time.Now().Truncate(time.Second).UnixMilli()
	data := sampleData(end)
	remoteWrite(t, base, data)
	store := storagetest.NewModel()
	appendAll(t, store, data)
	srv := serve(t, store, nil)
	for _, format := range []expfmt.FormatType{expfmt.TypeProtoDelim, expfmt.TypeTextPlain} {
		accept := string(expfmt.NewFormat(format))
		for _, match := range []string{"native", "custom", "temperature", "http_requests_total", "odd_labels", "stale_metric"} {
			got, want := federatedFamilies(t, srv.URL, match, accept), federatedFamilies(t, base, match, accept)
			if got != want {
				t.Errorf("%s %s\ngot        %s\nPrometheus %s", match, accept, got, want)
			}
		}
	}
}

func federatedFamilies(t *testing.T, base, match, accept string) string {
	t.Helper()
	resp, body := get(t, base+"/federate?match[]="+match, "Accept", accept)
	dec := expfmt.NewDecoder(strings.NewReader(body), expfmt.ResponseFormat(resp.Header))
	var out strings.Builder
	out.WriteString(resp.Header.Get("Content-Type"))
	for {
		var f dto.MetricFamily
		if dec.Decode(&f) != nil {
			return out.String()
		}
		out.WriteString(" " + f.GetName() + f.GetType().String())
		lines := make([]string, 0, len(f.Metric))
		for _, m := range f.Metric {
			lines = append(lines, "\n"+strings.ReplaceAll(m.String(), "  ", " "))
		}
		slices.Sort(lines)
		out.WriteString(strings.Join(lines, ""))
	}
}
