package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
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

// TestShutdownFinishesWhatIsInFlight holds a write half sent until the listener is
// closed, and sends the rest then: it is answered and stored, as the promise of a
// rollout without a failed request needs.
func TestShutdownFinishesWhatIsInFlight(t *testing.T) {
	dir := t.TempDir()
	p := startLuminate(t, dir, "--server.drainDelay=0s", "--server.shutdownTimeout=30s")
	addr := strings.TrimPrefix(p.url, "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"metrics":[{"name":"in_flight","value":1,"dimensions":{"i":"1"}}]}`
	fmt.Fprintf(conn, "POST /api/v1/write HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", addr, len(body), body[:20])
	// The half is read when the server counts a request in flight.
	eventually(t, 10*time.Second, func() error {
		if _, text, _ := do(t, "GET", p.url+"/metrics", "", ""); !strings.Contains(text, "luminate_http_requests_in_flight 2") {
			return errors.New("the write is not in flight")
		}
		return nil
	})
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, 10*time.Second, func() error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return nil
		}
		c.Close()
		return errors.New("the listener is open")
	})
	fmt.Fprint(conn, body[20:])
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the request in flight was cut: %v\n%s", err, p.log)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the request in flight was answered %s", resp.Status)
	}
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
	again := startLuminate(t, dir)
	if _, text, _ := do(t, "GET", again.url+"/api/v1/query?query="+url.QueryEscape(`count(last_over_time(in_flight[1h]))`), "", ""); !strings.Contains(text, `"1"`) {
		t.Errorf("the write in flight is not stored: %s", text)
	}
}
