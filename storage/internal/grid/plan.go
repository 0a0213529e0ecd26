package grid

import (
	"slices"

	"github.com/luminate/luminate/storage"
)

// Plan is a grid made ready: it is read only and shared by all workers.
type Plan struct {
	grid        storage.Grid
	steps       int
	after, upto []int64 // windows (after, upto] by step
	topk        bool
	quantile    bool // some aggregate is a quantile
	cellBytes   int64
	budget      *Budget
}

// NewPlan validates a grid and takes the memory of its steps from the budget.
func NewPlan(g storage.Grid, budget *Budget) (*Plan, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	p := &Plan{grid: g, steps: g.Steps(), budget: budget, cellBytes: countBytes}
	if err := budget.Take(int64(p.steps) * 2 * 8); err != nil {
		return nil, err
	}
	p.after, p.upto = make([]int64, p.steps), make([]int64, p.steps)
	for i := range p.steps {
		p.after[i], p.upto[i] = g.WindowAt(i)
	}
	for _, a := range g.Aggregates {
		p.cellBytes += stateBytes(a.Op)
		switch a.Op {
		case storage.AggTopK, storage.AggBottomK:
			p.topk = true
		case storage.AggQuantile:
			p.quantile = true
		}
	}
	return p, nil
}

// Steps returns the number of steps.
func (p *Plan) Steps() int { return p.steps }

// LastOnly tells whether one sample decides for each series: the newest at or before upto, if it is after after.
func (p *Plan) LastOnly() (after, upto int64, ok bool) {
	return p.after[0], p.upto[0], p.grid.Func == storage.FuncLast && p.steps == 1
}

// CountsOnly tells whether values do not matter, only whether a series has one.
func (p *Plan) CountsOnly() bool {
	return !slices.ContainsFunc(p.grid.Aggregates, func(a storage.Aggregate) bool {
		return a.Op != storage.AggCount && a.Op != storage.AggGroup
	})
}

// Chunk is a run of neighbouring units of work that are evaluated in order, with the groups [Lo, Hi) that they touch.
type Chunk struct {
	From, To int
	Lo, Hi   uint32
}

// Cut says how work is cut into chunks: up to Most, none of fewer than Least units but the last.
type Cut struct{ Least, Most int }

// DefaultCut suits work that costs nothing to begin.
var DefaultCut = Cut{Least: 8, Most: 32}

const (
	// cheapCells is how many cells of all chunks cost nothing worth mentioning.
	cheapCells = 1 << 16
)

// Chunks cuts units of work, of 64 series each, into chunks. span returns the lowest and highest group of a unit. The
// cut depends on the work alone, so that the same question gets the same bits; there are fewer chunks where each would
// touch many groups, since joining them would cost more than the evaluation.
func (p *Plan) Chunks(units int, cut Cut, span func(unit int) (lo, hi uint32)) []Chunk {
	size := max(cut.Least, (units+cut.Most-1)/cut.Most)
	var out []Chunk
	for from := 0; from < units; from += size {
		c := Chunk{From: from, To: min(units, from+size), Lo: ^uint32(0)}
		for i := c.From; i < c.To; i++ {
			lo, hi := span(i)
			c.Lo, c.Hi = min(c.Lo, lo), max(c.Hi, hi+1)
		}
		out = append(out, c)
	}
	limit := max(cheapCells, 2*64*int64(units)*int64(p.steps))
	limit = min(limit, p.budget.max/2/p.cellBytes)
	for len(out) > 1 && p.cells(out) > limit {
		for i := 0; i < len(out); i += 2 {
			c := out[i]
			if i+1 < len(out) {
				next := out[i+1]
				c.To, c.Lo, c.Hi = next.To, min(c.Lo, next.Lo), max(c.Hi, next.Hi)
			}
			out[i/2] = c
		}
		out = out[:(len(out)+1)/2]
	}
	return out
}

// cells counts the cells of all chunks.
func (p *Plan) cells(chunks []Chunk) (n int64) {
	for _, c := range chunks {
		n += int64(c.Hi-c.Lo) * int64(p.steps)
	}
	return n
}
