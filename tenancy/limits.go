package tenancy

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// Limits bound one tenant. In every field 0 is no bound; rates are for each second
// and are divided by the number of processes. The JSON name of a field is its key
// in the limits file, and limits.<key> the setting that errors name.
type Limits struct {
	WriteRequestsPerSecond float64 `json:"writeRequestsPerSecond"`
	WriteRequestBurst      int     `json:"writeRequestBurst"` // 0: twice the rate
	QueryRequestsPerSecond float64 `json:"queryRequestsPerSecond"`
	QueryRequestBurst      int     `json:"queryRequestBurst"` // 0: twice the rate
	SamplesPerSecond       float64 `json:"samplesPerSecond"`  // floats and histograms
	// SamplesBurst is also the largest request; 0: twice the rate, at least 10,000.
	SamplesBurst  int   `json:"samplesBurst"`
	SamplesPerDay int64 `json:"samplesPerDay"` // a UTC day
	StoredBytes   int64 `json:"storedBytes"`

	MaxActiveSeries          int `json:"maxActiveSeries"` // with a sample in the last 30 to 60 minutes
	MaxActiveSeriesPerMetric int `json:"maxActiveSeriesPerMetric"`
	MaxMetrics               int `json:"maxMetrics"` // active metric names

	// Of remote write and OTLP.
	MaxLabelsPerSeries int `json:"maxLabelsPerSeries"`
	MaxLabelNameBytes  int `json:"maxLabelNameBytes"`
	MaxLabelValueBytes int `json:"maxLabelValueBytes"`
	// Of native writes.
	MaxDimensions          int `json:"maxDimensions"`
	MaxMetricNameBytes     int `json:"maxMetricNameBytes"`
	MaxDimensionKeyBytes   int `json:"maxDimensionKeyBytes"`
	MaxDimensionValueBytes int `json:"maxDimensionValueBytes"`

	MaxRequestBytes        int64 `json:"maxRequestBytes"` // as it comes over the wire
	MaxDecodedBytes        int64 `json:"maxDecodedBytes"`
	MaxExemplarsPerRequest int   `json:"maxExemplarsPerRequest"`
	MaxHistogramBuckets    int   `json:"maxHistogramBuckets"`
	// The ingestion window: samples further from now are refused.
	MaxPast   Duration `json:"maxPast"`
	MaxFuture Duration `json:"maxFuture"`

	MaxQueryTime         Duration `json:"maxQueryTime"`
	MaxQueryRange        Duration `json:"maxQueryRange"`     // of samples read, windows and lookback included
	MaxPointsPerQuery    int      `json:"maxPointsPerQuery"` // of a native query
	MaxSeriesPerQuery    int      `json:"maxSeriesPerQuery"`
	MaxSamplesPerQuery   int      `json:"maxSamplesPerQuery"`
	MaxGroupsPerQuery    int      `json:"maxGroupsPerQuery"`
	MaxConcurrentQueries int      `json:"maxConcurrentQueries"`
	MaxQueuedQueries     int      `json:"maxQueuedQueries"` // waiting for a place
}

// UnlimitedLimits leaves every quantity free; what protects the process holds
// elsewhere. It is the default without authentication: a first user with 200k
// series must not meet a 429. Shapes of labels are those of the APIs.
func UnlimitedLimits() Limits {
	return Limits{
		MaxLabelsPerSeries: 64, MaxLabelNameBytes: 1024, MaxLabelValueBytes: 4096,
		MaxDimensions: 20, MaxMetricNameBytes: 256, MaxDimensionKeyBytes: 128, MaxDimensionValueBytes: 256,
		MaxPointsPerQuery: 10_000,
	}
}

// DefaultLimits carries one large Prometheus for each tenant; it is the default
// with authentication.
func DefaultLimits() Limits {
	l := UnlimitedLimits()
	l.WriteRequestsPerSecond, l.WriteRequestBurst = 20_000, 40_000
	l.QueryRequestsPerSecond, l.QueryRequestBurst = 1_000, 2_000
	l.SamplesPerSecond, l.SamplesBurst = 500_000, 1_000_000
	l.MaxActiveSeries = 2_000_000
	l.MaxExemplarsPerRequest, l.MaxHistogramBuckets = 10_000, 1_000
	l.MaxQueryTime = Duration(2 * time.Minute)
	l.MaxSamplesPerQuery = 200_000_000
	l.MaxSeriesPerQuery = 5_000_000
	l.MaxConcurrentQueries, l.MaxQueuedQueries = 20, 200
	return l
}

// Validate joins every problem, each with its key.
func (l Limits) Validate() error {
	var errs []error
	v := reflect.ValueOf(l)
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("json")
		f := v.Field(i)
		negative := f.CanInt() && f.Int() < 0 || f.CanFloat() && !(f.Float() >= 0 && f.Float() < 1e18)
		if negative {
			errs = append(errs, fmt.Errorf("%s must not be negative, it is %v", key, f.Interface()))
		}
	}
	return errors.Join(errs...)
}

// looser names a key of which l allows more than base, "" if there is none.
func (l Limits) looser(base Limits) string {
	lv, bv := reflect.ValueOf(l), reflect.ValueOf(base)
	number := func(v reflect.Value) float64 {
		if v.CanInt() {
			return float64(v.Int())
		}
		return v.Float()
	}
	for i := range lv.NumField() {
		mine, most := number(lv.Field(i)), number(bv.Field(i))
		if most != 0 && (mine == 0 || mine > most) {
			return lv.Type().Field(i).Tag.Get("json")
		}
	}
	return ""
}

func (l *Limits) samplesBurst() int {
	if l.SamplesBurst > 0 {
		return l.SamplesBurst
	}
	return max(10_000, int(2*l.SamplesPerSecond))
}

func burstOr(burst int, rate float64) int {
	if burst > 0 {
		return burst
	}
	return max(1, int(2*rate))
}

// tracksSeries tells whether active series must be known.
func (l *Limits) tracksSeries() bool {
	return l.MaxActiveSeries > 0 || l.MaxActiveSeriesPerMetric > 0 || l.MaxMetrics > 0
}

// Duration is a time.Duration that is written as Prometheus writes it: "90d",
// "2m", "1h30m".
type Duration time.Duration

// String returns Prometheus's form.
func (d Duration) String() string { return model.Duration(d).String() }

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	if string(b) == "0" {
		*d = 0
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("a duration is a string such as 30s, 2m or 90d, not %s", b)
	}
	p, err := model.ParseDuration(s)
	if err != nil {
		return err
	}
	*d = Duration(p)
	return nil
}

// applyLimits decodes a JSON object with some of the keys over base. Unknown keys
// are errors that name the key and the nearest right one.
func applyLimits(base Limits, doc json.RawMessage) (Limits, error) {
	if len(doc) == 0 || string(doc) == "null" {
		return base, nil
	}
	dec := json.NewDecoder(strings.NewReader(string(doc)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&base); err != nil {
		return Limits{}, unknownKey(err, limitKeys())
	}
	return base, base.Validate()
}

// limitKeys lists the keys of a tenant's limits.
func limitKeys() []string {
	t := reflect.TypeFor[Limits]()
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("json")
	}
	return keys
}
