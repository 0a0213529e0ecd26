package storagetest

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/luminate/luminate/storage"
)

// Shape is how the values of a generated series move.
type Shape uint8

// The shapes. ShapeCounter grows by random whole steps and restarts from zero
// now and then if Resets is set; ShapeGauge walks with two decimals; ShapeConstant
// stays; ShapeNoise is any finite float.
const (
	ShapeCounter Shape = iota
	ShapeGauge
	ShapeConstant
	ShapeNoise
)

// Workload describes generated series. The same Workload always generates the
// same bytes.
type Workload struct {
	Seed      uint64
	Series    int
	Metrics   int     // metric names that the series spread over
	Customers int     // distinct customer_id values
	Skew      float64 // 0 = customers evenly; 1 = Zipf-like: few customers have most series
	Interval  int64   // ms between scrapes
	Resets    bool    // counters restart
	Churn     float64 // share of series that is replaced by new ones at each scrape
}

// PerformanceWorkload is the data set of the published figures: eight labels of
// about 190 bytes, 60 % counters with random increments, 30 % gauges of two
// decimals, 10 % constant, 15 s apart.
func PerformanceWorkload(series, metrics int) Workload {
	return Workload{Seed: 1, Series: series, Metrics: metrics, Customers: 20_000, Interval: 15_000}
}

// Generator produces the scrapes of a Workload one after the other. It is not
// safe for concurrent use.
type Generator struct {
	w       Workload
	rng     *rand.Rand
	labels  []storage.Labels
	shapes  []Shape
	values  []float64
	born    int
	builder storage.LabelsBuilder
}

// NewGenerator builds the series' labels; memory is about 250 bytes for each.
func NewGenerator(w Workload) *Generator {
	w.Metrics, w.Customers = max(1, w.Metrics), max(1, w.Customers)
	g := &Generator{w: w, rng: rand.New(rand.NewPCG(w.Seed, 0x6c756d696e617465))}
	for range w.Series {
		ls, shape, v := g.newSeries()
		g.labels, g.shapes, g.values = append(g.labels, ls), append(g.shapes, shape), append(g.values, v)
	}
	return g
}

func (g *Generator) newSeries() (storage.Labels, Shape, float64) {
	n := g.born
	g.born++
	shape := ShapeConstant
	switch n % 10 {
	case 0, 1, 2, 3, 4, 5:
		shape = ShapeCounter
	case 6, 7, 8:
		shape = ShapeGauge
	}
	b := &g.builder
	b.Reset()
	b.Add(storage.MetricName, fmt.Sprintf("http_requests_%03d_total", n%g.w.Metrics))
	b.Add("customer_id", fmt.Sprintf("customer-%08d", g.customer()))
	b.Add("endpoint", fmt.Sprintf("/api/v1/resource/%02d", n%17))
	b.Add("instance", fmt.Sprintf("10.%d.%d.%d:9090", n>>16&255, n>>8&255, n&255))
	b.Add("job", fmt.Sprintf("service-%02d", n%23))
	b.Add("region", [...]string{"eu-central-1", "eu-west-1", "us-east-1", "us-west-2"}[n%4])
	b.Add("serial", fmt.Sprintf("serial-%010d", n))
	b.Add("status", [...]string{"200", "404", "500"}[n%3])
	ls, err := b.AppendTo(nil)
	if err != nil {
		panic(err) // the names above are distinct
	}
	return ls, shape, float64(g.rng.IntN(1_000_000))
}

// customer draws a customer: evenly, or by a power law.
func (g *Generator) customer() int {
	u := g.rng.Float64()
	if g.w.Skew > 0 {
		u = math.Pow(u, 1+4*g.w.Skew)
	}
	return int(u * float64(g.w.Customers))
}

// Scrape moves every series one step and appends its sample at time t to b,
// series [from, to) only; a whole scrape is Scrape(b, t, 0, g.Series()).
func (g *Generator) Scrape(b *storage.Batch, t int64, from, to int) {
	for i := from; i < to; i++ {
		if g.w.Churn > 0 && g.rng.Float64() < g.w.Churn {
			g.labels[i], g.shapes[i], g.values[i] = g.newSeries()
		}
		g.step(i)
		b.Labels = append(b.Labels, g.labels[i]...)
		b.AddSample(t, 0, g.values[i])
		b.EndSeries()
	}
}

func (g *Generator) step(i int) {
	switch g.shapes[i] {
	case ShapeCounter:
		g.values[i] += float64(g.rng.IntN(100))
		if g.w.Resets && g.rng.IntN(200) == 0 {
			g.values[i] = 0
		}
	case ShapeGauge:
		g.values[i] = math.Round((g.values[i]+g.rng.NormFloat64()*5)*100) / 100
	case ShapeNoise:
		g.values[i] = g.rng.NormFloat64() * 1e6
	case ShapeConstant:
	}
}

// Series returns the number of series of one scrape.
func (g *Generator) Series() int { return len(g.labels) }

// Labels returns series i's labels.
func (g *Generator) Labels(i int) storage.Labels { return g.labels[i] }

// Fill stores a small, fixed set of series for a tenant: what tests of APIs and
// wrappers find there. Counters m_total and gauges m_gauge over 3 customers and 2
// regions, 20 samples 15 s apart, the last at end.
func Fill(t TB, s storage.Store, tenant string, end int64) {
	t.Helper()
	var b storage.Batch
	for c := range 3 {
		for r, region := range []string{"eu", "us"} {
			for _, name := range []string{"m_total", "m_gauge"} {
				ls := storage.LabelsFromStrings(storage.MetricName, name, "customer_id", fmt.Sprintf("c%d", c), "region", region)
				var xs []storage.Sample
				for i := range 20 {
					v := float64(i * (10 + c + r))
					if name == "m_gauge" {
						v = 100 + float64((i*7+c*3+r)%11)/4
					}
					xs = append(xs, storage.Sample{T: end - int64(19-i)*15_000, V: v})
				}
				b.Add(ls, xs...)
			}
		}
	}
	MustAppend(t, s, tenant, &b)
}
