package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestReadmeFirstScreen runs the curl lines of the README against the real
// binary, as they stand there.
func TestReadmeFirstScreen(t *testing.T) {
	p := startLuminate(t, t.TempDir())
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(curl.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) == 0 {
		t.Fatal("the README has no curl lines")
	}
	for _, b := range blocks {
		if strings.Contains(b[1], "Authorization") {
			continue // needs a token; tested where tokens are
		}
		script := strings.ReplaceAll(b[1], "http://127.0.0.1:8080", p.url)
		out, err := exec.Command("bash", "-ec", strings.ReplaceAll(script, "curl -s", "curl -sS --fail-with-body")).CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v: %s", script, err, out)
		}
		if !strings.Contains(string(out), `"accepted":1`) || !strings.Contains(string(out), "cust_123") {
			t.Errorf("the README's lines answer %s", out)
		}
	}
	// Grafana's own look at a new data source, and what was written through PromQL.
	for _, path := range []string{
		"/api/v1/query?query=1%2B1&time=4&timeout=2m", "/api/v1/status/buildinfo",
		"/api/v1/query?query=" + url.QueryEscape(`sum_over_time(api_latency{customer_id="cust_123"}[1h])`),
	} {
		status, body, _ := do(t, "GET", p.url+path, "", "")
		if status != 200 || !strings.Contains(body, `"success"`) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	status, body, _ := do(t, "GET", p.url+"/api/v1/query?query="+url.QueryEscape(`count_over_time(api_latency[1h])`), "", "")
	if status != 200 || !strings.Contains(body, `"1"`) {
		t.Errorf("count_over_time: %d %s", status, body)
	}
}

// TestShutdownIsOrderly stops a server under writes: readiness goes first, every
// acknowledged event is there after the restart, and the exit code is 0.
func TestShutdownIsOrderly(t *testing.T) {
	dir := t.TempDir()
	p := startLuminate(t, dir, "--server.drainDelay=500ms")
	var acked []int
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			body := fmt.Sprintf(`{"metrics":[{"name":"drained","value":%d,"dimensions":{"i":"%d"}}]}`, i, i)
			resp, err := http.Post(p.url+"/api/v1/write", "application/json", strings.NewReader(body))
			if err != nil {
				return
			}
			resp.Body.Close()
			if resp.StatusCode == 200 {
				acked = append(acked, i)
			}
		}
	})
	eventually(t, 10*time.Second, func() error {
		if _, body, _ := do(t, "GET", p.url+"/api/v1/query?query=count(drained)", "", ""); !strings.Contains(body, `"value"`) {
			return fmt.Errorf("nothing written yet: %s", body)
		}
		return nil
	})
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	sawNotReady := false
	for !sawNotReady {
		resp, err := http.Get(p.url + "/readyz")
		if err != nil {
			break // closed
		}
		sawNotReady = resp.StatusCode == http.StatusServiceUnavailable
		resp.Body.Close()
	}
	if !sawNotReady {
		t.Error("the listener closed before /readyz said 503")
	}
	<-p.exited
	close(stop)
	wg.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
	again := startLuminate(t, dir)
	_, body, _ := do(t, "GET", again.url+"/api/v1/query?query="+url.QueryEscape(`count(last_over_time(drained[1h]))`), "", "")
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Data.Result) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	if got := fmt.Sprint(answer.Data.Result[0].Value[1]); got < fmt.Sprint(len(acked)) && len(got) <= len(fmt.Sprint(len(acked))) {
		t.Errorf("%s series after the restart, %d were acknowledged", got, len(acked))
	}
}
