package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

const (
	ledgerStep   = 100  // ms between the samples of a series
	ledgerWindow = 3000 // batches read back in one query
	ledgerMetric = "ledger"
)

// ledger writes numbered batches whose every value follows from the number, and
// knows which of them were acknowledged.
type ledger struct {
	base    int64 // time of batch 0, Unix milliseconds
	series  int   // of each writer
	acked   []int // by writer: batches below it are acknowledged
	checked []int // by writer: batches below it were read back once
	refused atomic.Int64
	slow    atomic.Int64 // the longest time to a refusal, ns
	client  *http.Client
}

func newLedger(writers, series int) *ledger {
	return &ledger{
		base: time.Now().Add(-12*time.Hour).UnixMilli() / ledgerStep * ledgerStep, series: series,
		acked: make([]int, writers), checked: make([]int, writers), client: newClient(),
	}
}

func (l *ledger) samples() (n int) {
	for _, a := range l.acked {
		n += a * l.series
	}
	return n
}

func ledgerValue(writer, series, n int) float64 {
	return float64(n)*1.25 + float64(series)*1e6 + float64(writer)*1e9
}

func (l *ledger) encode(writer, n int) ([]byte, error) {
	var req prompb.WriteRequest
	for i := range l.series {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels: []prompb.Label{
				{Name: "__name__", Value: ledgerMetric}, {Name: "series", Value: strconv.Itoa(i)}, {Name: "writer", Value: strconv.Itoa(writer)},
			},
			Samples: []prompb.Sample{{Timestamp: l.base + int64(n)*ledgerStep, Value: ledgerValue(writer, i, n)}},
		})
	}
	raw, err := req.Marshal()
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, raw), nil
}

// write sends batches with every writer until ctx is done or the server is gone.
// A batch that was not acknowledged is sent again by the next call: writing the
// same sample twice is one sample. Refusals are counted and tried again.
func (l *ledger) write(ctx context.Context, base string) error {
	errs := make([]error, len(l.acked))
	var wg sync.WaitGroup
	for w := range l.acked {
		wg.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				status, err := l.writeOne(ctx, base, w)
				if err != nil {
					return // the server or the round has ended; what counts is the check
				}
				switch {
				case status/100 == 2:
					l.acked[w]++
				case status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests:
					l.refused.Add(1)
					l.refusedAfter(time.Since(begin))
					wait(ctx, 20*time.Millisecond)
				default:
					errs[w] = fmt.Errorf("writer %d: status %d", w, status)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *ledger) refusedAfter(d time.Duration) {
	for old := l.slow.Load(); int64(d) > old && !l.slow.CompareAndSwap(old, int64(d)); old = l.slow.Load() {
	}
}

// slowest is the longest time to a refusal.
func (l *ledger) slowest() time.Duration { return time.Duration(l.slow.Load()) }

// writeOne sends the next batch of a writer and returns the status.
func (l *ledger) writeOne(ctx context.Context, base string, writer int) (int, error) {
	body, err := l.encode(writer, l.acked[writer])
	if err != nil {
		return 0, err
	}
	return postOnce(ctx, l.client, base+"/api/v1/write", body, "application/x-protobuf", "snappy")
}

// verdict is what reading back found.
type verdict struct {
	read, missing, wrong int
	err                  error // of a query: said aloud, so not silent
}

// check reads back what was acknowledged since the last check and the window
// before it; with all, everything.
func (l *ledger) check(ctx context.Context, base string, all bool) verdict {
	var v verdict
	for w := range l.acked {
		from := max(0, l.checked[w]-ledgerWindow/4)
		if all {
			from = 0
		}
		for ; from < l.acked[w]; from += ledgerWindow {
			if v.err = l.checkWindow(ctx, base, w, from, min(from+ledgerWindow, l.acked[w]), &v); v.err != nil {
				return v
			}
		}
		l.checked[w] = l.acked[w]
	}
	return v
}

// checkWindow reads batches from ≤ n < to of a writer and compares each value.
func (l *ledger) checkWindow(ctx context.Context, base string, writer, from, to int, v *verdict) error {
	params := url.Values{
		"query": {fmt.Sprintf(`%s{writer="%d"}[%dms]`, ledgerMetric, writer, int64(to-from)*ledgerStep)},
		"time":  {seconds(l.base + int64(to-1)*ledgerStep)},
	}
	_, body, err := query(ctx, l.client, base, "/api/v1/query", params)
	if err != nil {
		return err
	}
	var answer struct {
		Warnings []string `json:"warnings"`
		Data     struct {
			Result []struct {
				Metric map[string]string    `json:"metric"`
				Values [][2]json.RawMessage `json:"values"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	if len(answer.Warnings) > 0 {
		return fmt.Errorf("warnings: %v", answer.Warnings)
	}
	found := 0
	for _, r := range answer.Data.Result {
		i, err := strconv.Atoi(r.Metric["series"])
		if err != nil || i >= l.series {
			v.wrong++
			continue
		}
		for _, x := range r.Values {
			ts, err1 := strconv.ParseFloat(string(x[0]), 64)
			value, err2 := strconv.ParseFloat(string(x[1][1:len(x[1])-1]), 64)
			at := int64(math.Round(ts*1000)) - l.base
			n := int(at / ledgerStep)
			if err1 != nil || err2 != nil || at%ledgerStep != 0 || n < from || n >= to || value != ledgerValue(writer, i, n) {
				v.wrong++
				continue
			}
			found++
		}
	}
	v.read += found
	v.missing += max(0, (to-from)*l.series-found)
	return nil
}

// postOnce posts a body and returns the status.
func postOnce(ctx context.Context, c *http.Client, target string, body []byte, contentType, encoding string) (int, error) {
	req, err := newPost(ctx, target, body, contentType, encoding)
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, drain(resp)
}
