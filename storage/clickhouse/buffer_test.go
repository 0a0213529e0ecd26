package clickhouse

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/luminate/luminate/storage"
)

// sentBlock is a block as the fake ClickHouse of these tests saw it.
type sentBlock struct {
	at             time.Duration // since the test began
	rows, requests int
}

// buffered runs test over a buffer whose blocks take `takes` to store.
func buffered(t *testing.T, cfg Config, takes time.Duration, test func(b *buffer, sent func() []sentBlock)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		begin := time.Now()
		var log []sentBlock
		got := make(chan sentBlock, 1000)
		b := newBuffer(cfg, func(bl *block) {
			got <- sentBlock{time.Since(begin), bl.count, bl.requests}
			time.Sleep(takes)
		})
		test(b, func() []sentBlock {
			synctest.Wait()
			for {
				select {
				case s := <-got:
					log = append(log, s)
				default:
					return log
				}
			}
		})
		b.close()
	})
}

func requestOf(rows int) map[blockKey]*block {
	p := &piece{tenant: "a", ids: make([]uint64, rows)}
	key := blockKey{day: 1}
	return map[blockKey]*block{key: {blockKey: key, pieces: []*piece{p}, requests: 1}}
}

func mustAdd(t *testing.T, b *buffer, rows int) *block {
	t.Helper()
	waits, err := b.add(requestOf(rows))
	if err != nil {
		t.Fatal(err)
	}
	return waits[0]
}

func bufferConfig() Config {
	cfg := DefaultConfig()
	cfg.FlushAge, cfg.FlushAgeMax, cfg.FlushRows, cfg.MaxBufferedRows = 20*time.Millisecond, time.Second, 1000, 3000
	return cfg
}

func TestALoneRequestWaitsForNothing(t *testing.T) {
	buffered(t, bufferConfig(), 5*time.Millisecond, func(b *buffer, sent func() []sentBlock) {
		for range 3 {
			begin := time.Now()
			<-mustAdd(t, b, 10).done
			if took := time.Since(begin); took != 5*time.Millisecond {
				t.Errorf("a lone request took %s, storing it takes 5ms", took)
			}
			time.Sleep(time.Second)
		}
		if n := len(sent()); n != 3 {
			t.Errorf("%d blocks, want 3", n)
		}
	})
}

// TestSendersShareBlocks runs senders that each wait for an answer before they send
// again: after the first blocks all of them are in one, so parts are few.
func TestSendersShareBlocks(t *testing.T) {
	const senders, turns = 8, 50
	buffered(t, bufferConfig(), 30*time.Millisecond, func(b *buffer, sent func() []sentBlock) {
		done := make(chan struct{})
		for n := range senders {
			go func() {
				defer func() { done <- struct{}{} }()
				for range turns {
					time.Sleep(time.Duration(n) * time.Millisecond / 2) // what making a request takes
					waits, err := b.add(requestOf(10))
					if err != nil {
						t.Error(err)
						return
					}
					<-waits[0].done
				}
			}()
		}
		for range senders {
			<-done
		}
		blocks := sent()
		if len(blocks) > turns+5 {
			t.Errorf("%d blocks of %d requests, want about %d", len(blocks), senders*turns, turns)
		}
		rows := 0
		for _, s := range blocks {
			rows += s.rows
		}
		if rows != senders*turns*10 {
			t.Errorf("%d rows were sent, want %d", rows, senders*turns*10)
		}
	})
}

func TestAFullBlockGoesAtOnce(t *testing.T) {
	buffered(t, bufferConfig(), time.Minute, func(b *buffer, sent func() []sentBlock) {
		mustAdd(t, b, 600) // nothing is on the way
		mustAdd(t, b, 600) // waits for the first
		if got := sent(); len(got) != 1 || got[0].rows != 600 {
			t.Fatalf("sent %v, want the first request only", got)
		}
		mustAdd(t, b, 500)
		if got := sent(); len(got) != 2 || got[1] != (sentBlock{0, 1100, 2}) {
			t.Fatalf("sent %v, want the second and third together at once", got)
		}
	})
}

func TestABlockWaitsNoLongerThanTheLongestAge(t *testing.T) {
	buffered(t, bufferConfig(), time.Minute, func(b *buffer, sent func() []sentBlock) {
		mustAdd(t, b, 1)
		mustAdd(t, b, 1)
		time.Sleep(999 * time.Millisecond)
		if got := sent(); len(got) != 1 {
			t.Fatalf("sent %v before the age", got)
		}
		time.Sleep(time.Millisecond)
		if got := sent(); len(got) != 2 {
			t.Fatalf("sent %v after the age", got)
		}
	})
}

// TestTheBufferIsBounded: rows that wait are at most as many as configured, whatever
// ClickHouse does; more is refused with a kind that a sender retries.
func TestTheBufferIsBounded(t *testing.T) {
	buffered(t, bufferConfig(), time.Minute, func(b *buffer, sent func() []sentBlock) {
		for range 3 {
			mustAdd(t, b, 1000)
		}
		_, err := b.add(requestOf(1))
		var e *storage.Error
		if !errors.As(err, &e) || e.Kind != storage.KindUnavailable || e.ID != "max-buffered-rows" || e.Setting == "" {
			t.Fatalf("a row too many: %v", err)
		}
		time.Sleep(time.Minute)
		if sent(); b.queued != 0 {
			t.Fatalf("%d rows are queued after all were stored", b.queued)
		}
		<-mustAdd(t, b, 5000).done // an empty buffer takes any request
	})
}

// TestSmallRequestsMakeFewParts is the other end: requests that come one by one make
// no more blocks than the flush age allows, and the controller lengthens it.
func TestSmallRequestsMakeFewParts(t *testing.T) {
	cfg := bufferConfig()
	for _, age := range []time.Duration{cfg.FlushAge, 200 * time.Millisecond} {
		buffered(t, cfg, time.Millisecond, func(b *buffer, sent func() []sentBlock) {
			b.age.Store(int64(age))
			for range 1000 { // for two seconds
				mustAdd(t, b, 1)
				time.Sleep(2 * time.Millisecond)
			}
			if n, most := len(sent()), int(2*time.Second/age)+2; n > most {
				t.Errorf("age %s: %d blocks in two seconds, want at most %d", age, n, most)
			}
		})
	}
}
