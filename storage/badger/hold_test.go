package badger

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/luminate/luminate/storage"
)

// holder counts what a call says that it holds, and refuses more than most.
type holder struct {
	mu         sync.Mutex
	now, peak  int64
	most       int64
	errRefused error
}

func (h *holder) hold(n int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now += n
	h.peak = max(h.peak, h.now)
	if n > 0 && h.most > 0 && h.now > h.most {
		return h.errRefused
	}
	return nil
}

// TestHoldIsTold: what a selection or an evaluation holds is told before it is held,
// all of it is given back however the call ends, and a refusal ends the call.
func TestHoldIsTold(t *testing.T) {
	clock := newClock()
	cfg := testConfig(t.TempDir())
	cfg.Now = clock.now
	db := openTest(t, cfg)
	fill(t, db, "m", 100, 20, clock.ms.Load()-dayMillis)
	fill(t, db, "m", 100, 20, clock.ms.Load())
	refused := storage.Errorf(storage.KindUnavailable, "test", "no more")
	run := func(name string, most int64, stopAfter int, change func(*storage.Selection)) (h *holder, series int, err error) {
		h = &holder{most: most, errRefused: refused}
		s := everything()
		s.Hold = h.hold
		change(&s)
		for _, err = range db.Select(context.Background(), engineTenant, s) {
			if err != nil {
				break
			}
			if series++; series == stopAfter {
				break
			}
		}
		if h.now != 0 {
			t.Errorf("%s: %d bytes are not given back", name, h.now)
		}
		return h, series, err
	}
	for name, change := range map[string]func(*storage.Selection){
		"sorted": func(*storage.Selection) {}, "unsorted, several days": func(s *storage.Selection) { s.Unsorted = true },
		"limit": func(s *storage.Selection) { s.Limit = 30 },
	} {
		h, series, err := run(name, 0, 0, change)
		if err != nil || series < 30 || h.peak < 100*40*16 {
			t.Errorf("%s: %d series, peak %d, %v", name, series, h.peak, err)
		}
		if h, series, err := run(name+", left early", 0, 3, change); err != nil || series != 3 || h.peak == 0 {
			t.Errorf("%s, left early: %d series, %v", name, series, err)
		}
		if _, series, err := run(name+", refused", 10_000, 0, change); !errors.Is(err, refused) || series != 0 {
			t.Errorf("%s, refused: %d series, %v", name, series, err)
		}
	}
	evaluate := func(most int64) (*holder, error) {
		h := &holder{most: most, errRefused: refused}
		_, err := db.Evaluate(context.Background(), engineTenant, storage.Grid{
			Start: clock.ms.Load() - dayMillis, End: clock.ms.Load(), Step: 3_600_000, Window: 7_200_000, Func: storage.FuncSumOverTime,
			Aggregates: []storage.Aggregate{{Op: storage.AggQuantile, Arg: 0.5}}, Grouping: []string{"i"}, Hold: h.hold,
		})
		if h.now != 0 {
			t.Errorf("evaluate: %d bytes are not given back", h.now)
		}
		return h, err
	}
	if h, err := evaluate(0); err != nil || h.peak < 100*25*16 {
		t.Errorf("evaluate: peak %d, %v", h.peak, err)
	}
	if _, err := evaluate(5000); !errors.Is(err, refused) {
		t.Errorf("evaluate, refused: %v", err)
	}
}
