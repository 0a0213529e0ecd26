package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// newClient returns a client that keeps enough connections for the senders.
func newClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	t.DisableCompression = true
	return &http.Client{Transport: t, Timeout: 2 * time.Minute}
}

// send posts the bodies scrape by scrape with so many senders; within a scrape
// the order is free, as with Prometheus's shards. It returns the time it took.
func send(ctx context.Context, c *http.Client, baseURL string, r *requests, senders int) (time.Duration, error) {
	begin := time.Now()
	for _, scrape := range r.bodies {
		var next atomic.Int64
		errs := make([]error, senders)
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= len(scrape) || errs[s] != nil {
						return
					}
					errs[s] = post(ctx, c, baseURL+"/api/v1/write", scrape[i], r.native)
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return time.Since(begin), err
		}
	}
	return time.Since(begin), nil
}

// post sends one write request, again after 429 and 503 as a sender would.
func post(ctx context.Context, c *http.Client, target string, body []byte, native bool) error {
	_, err := postCounting(ctx, c, target, body, native)
	return err
}

// postCounting is post, and counts the refusals.
func postCounting(ctx context.Context, c *http.Client, target string, body []byte, native bool) (refused int, err error) {
	for attempt := range 50 {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
		if err != nil {
			return refused, err
		}
		if native {
			req.Header.Set("Content-Type", "application/json")
		} else {
			req.Header.Set("Content-Type", "application/x-protobuf")
			req.Header.Set("Content-Encoding", "snappy")
			req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
		}
		resp, err := c.Do(req)
		if err != nil {
			return refused, err
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		switch {
		case resp.StatusCode/100 == 2:
			return refused, nil
		case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable:
			refused++
			wait(ctx, time.Duration(attempt+1)*20*time.Millisecond)
		default:
			return refused, fmt.Errorf("write: %s: %s", resp.Status, text)
		}
	}
	return refused, errors.New("write: still refused after 50 attempts")
}

// query runs an instant or range query and returns its latency and answer.
func query(ctx context.Context, c *http.Client, baseURL, path string, params url.Values) (time.Duration, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+path+"?"+params.Encode(), nil)
	if err != nil {
		return 0, nil, err
	}
	begin := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	took := time.Since(begin)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("query %s: %s: %.300s", params.Get("query"), resp.Status, body)
	}
	return took, body, err
}
