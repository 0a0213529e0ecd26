package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/luminate/luminate/internal/proctest"
)

// failedTwice matches the metrics of a soak that went on after a failure.
var failedTwice = regexp.MustCompile(`(?m)^luminate_soak_failures_total\{reason="missing"\} ([2-9]|\d\d+)$`)

// startLuminate runs a real one on an empty folder and returns its address.
func startLuminate(t *testing.T) string {
	t.Helper()
	path, err := proctest.Build("cmd/luminate")
	if err != nil {
		t.Fatal(err)
	}
	addr := proctest.FreeAddress(t)
	return proctest.Start(t, "http://"+addr, "/readyz", nil, path, "serve", "--server.listen", addr,
		"--storage.badger.dir", t.TempDir(), "--storage.badger.minFreeBytes", "0").URL
}

// command runs one of ours with arguments.
func command(ctx context.Context, cmd *cobra.Command, args ...string) error {
	cmd.SetArgs(args)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	return cmd.ExecuteContext(ctx)
}

// count asks a server for a number.
func count(t *testing.T, base, expr string) string {
	t.Helper()
	c := newClient()
	defer c.CloseIdleConnections()
	_, body, err := query(t.Context(), c, base, "/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Data.Result) != 1 {
		t.Fatalf("%s: %s (%v)", expr, body, err)
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	return text
}

// TestLoadSends: both protocols store all that they are told to send, and nothing is
// sent to other machines.
func TestLoadSends(t *testing.T) {
	base := startLuminate(t)
	small := []string{"--url", base, "--metrics", "1", "--scrapes", "3", "--customers", "10"}
	if err := command(t.Context(), loadCommand(), append(small, "--series", "150")...); err != nil {
		t.Fatal(err)
	}
	if n := count(t, base, `count({__name__=~"http.*"})`); n != "150" {
		t.Errorf("%s series of remote write, want 150", n)
	}
	if err := command(t.Context(), loadCommand(), append(small, "--series", "250", "--native")...); err != nil {
		t.Fatal(err)
	}
	// The generator's series are the same, so the first 150 are there already.
	if n := count(t, base, `count({__name__=~"http.*"})`); n != "250" {
		t.Errorf("%s series with the native API's, want 250", n)
	}
	if err := command(t.Context(), loadCommand(), "--url", "http://192.0.2.1:8080"); err == nil {
		t.Error("load goes to another machine")
	}
}

// TestSoak passes against a real server and fails where a proxy spoils an answer.
func TestSoak(t *testing.T) {
	base := startLuminate(t)
	args := []string{"--series", "3", "--interval", "50ms", "--duration", "2s"}
	if err := command(t.Context(), soakCommand(), append(args, "--url", base)...); err != nil {
		t.Errorf("against a server that keeps its promises: %v", err)
	}
	target, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	proxy.Transport = transport
	forgets := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/query") {
			_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer forgets.Close()
	if err := command(t.Context(), soakCommand(), append(args, "--url", forgets.URL)...); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("against one that forgets: %v", err)
	}
	soakForEver(t, forgets.URL)
}

// soakForEver has the continuous test count failures instead of ending, under the names
// that the alert asks for.
func soakForEver(t *testing.T, base string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended, addr := make(chan error, 1), proctest.FreeAddress(t)
	go func() {
		ended <- command(ctx, soakCommand(), "--url", base, "--series", "3", "--interval", "50ms", "--duration", "0", "--listen", addr)
	}()
	defer http.DefaultClient.CloseIdleConnections()
	proctest.Eventually(t, time.Minute, func() error {
		resp, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		page, err := io.ReadAll(resp.Body)
		if err == nil && !failedTwice.Match(page) {
			return io.ErrNoProgress
		}
		return err
	})
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the continuous test ended with %v", err)
	}
	rules, err := os.ReadFile("../../deploy/prometheus/luminate.alerts.yaml")
	if err != nil || !strings.Contains(string(rules), `luminate_soak_failures_total{reason!="unavailable"}`) {
		t.Errorf("no alert asks for the failures (%v)", err)
	}
}

// TestExample writes customers of which every one has series.
func TestExample(t *testing.T) {
	base := startLuminate(t)
	if err := command(t.Context(), exampleCommand(), "--url", base, "--customers", "7", "--span", "5m"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, base, `count(count by (customer_id) ({customer_id!=""}))`); n != "7" {
		t.Errorf("%s customers, want 7", n)
	}
	if err := command(t.Context(), exampleCommand(), "--url", base, "--customers", "0"); err == nil {
		t.Error("no customers are taken for some")
	}
}
