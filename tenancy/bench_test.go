package tenancy

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/mux"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

// BenchmarkAppend measures what identity and limits add to a batch of 2,000
// samples, each of another series, out of 100,000 and of a million series.
func BenchmarkAppend(b *testing.B) {
	for name, series := range map[string]int{"series=100k": 100_000, "series=1M": 1_000_000} {
		b.Run(name, func(b *testing.B) {
			g := storagetest.NewGenerator(storagetest.PerformanceWorkload(series, 50))
			l := newTestLimiter(b, DefaultLimits())
			l.cfg.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
			s := l.state(tenantA)
			s.samples.limiter.Store(nil) // the rate is measured by its own benchmark, and would refuse here
			var batches []*storage.Batch
			for i := 0; i+2000 <= series; i += 2000 {
				var x storage.Batch
				g.Scrape(&x, 1_700_000_000_000, i, i+2000)
				batches = append(batches, &x)
				if _, err := l.checkBatch(b.Context(), s, &x); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			var warm storage.Batch // a decoder has just written the batch: it is in the cache
			for i := range b.N {
				b.StopTimer()
				from := batches[i%len(batches)]
				warm.Series, warm.Labels = append(warm.Series[:0], from.Series...), append(warm.Labels[:0], from.Labels...)
				warm.Samples = append(warm.Samples[:0], from.Samples...)
				b.StartTimer()
				f, err := l.checkBatch(b.Context(), s, &warm)
				if f != nil || err != nil {
					b.Fatal(f, err)
				}
				s.accept(2000, l.cfg.Now())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/sample")
		})
	}
}

// BenchmarkGate measures what a request costs before its handler: token, tenant,
// scope, rates, headers.
func BenchmarkGate(b *testing.B) {
	v := newTestVerifier(b, func(c *AuthConfig) { c.Secret = testSecret; c.PublicKeyFile = publicPEM(b, testECDSA) })
	limits := DefaultLimits()
	limits.WriteRequestsPerSecond, limits.WriteRequestBurst = 1e9, 1e9
	for name, key := range map[string]any{"HS256": []byte(testSecret), "ES256": testECDSA} {
		for _, auth := range []bool{false, true} {
			mode := "off"
			if auth {
				mode = name
			} else if name == "ES256" {
				continue
			}
			b.Run("auth="+mode, func(b *testing.B) {
				r := mux.NewRouter()
				if auth {
					g := newTestGate(b, v, newTestLimiter(b, limits), nil)
					r = g.mux
				} else {
					r.HandleFunc("/api/v1/push", func(http.ResponseWriter, *http.Request) {}).Methods("POST")
				}
				req := httptest.NewRequest("POST", "/api/v1/push", nil)
				req.Header.Set("Authorization", "Bearer "+mint(b, key, Grant{Tenant: "a", Scopes: []Scope{ScopeWrite}, TTL: time.Hour}))
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					w := httptest.NewRecorder()
					r.ServeHTTP(w, req)
					if w.Code != 200 {
						b.Fatal(w.Code)
					}
				}
			})
		}
	}
}
