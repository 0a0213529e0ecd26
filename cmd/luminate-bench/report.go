package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// printTable prints the figures as a Markdown table, with each peer's ratio to
// the first one.
func printTable(w io.Writer, peers []peer, rows []row) {
	head := []string{"work", "figure", "unit", "target"}
	for _, p := range peers {
		head = append(head, p.name)
	}
	for _, p := range peers[1:] {
		head = append(head, p.name+" / "+peers[0].name)
	}
	fmt.Fprintln(w, "| "+strings.Join(head, " | ")+" |")
	fmt.Fprintln(w, "|"+strings.Repeat("---|", len(head)))
	for _, r := range rows {
		cells := []string{r.Scenario, r.Figure, r.Unit, r.Target}
		for _, p := range peers {
			cells = append(cells, number(r.Values, p.name))
		}
		for _, p := range peers[1:] {
			ratio := ""
			a, okA := r.Values[peers[0].name]
			b, okB := r.Values[p.name]
			if okA && okB && a > 0 {
				ratio = fmt.Sprintf("%.2f", b/a)
			}
			cells = append(cells, ratio)
		}
		fmt.Fprintln(w, "| "+strings.Join(cells, " | ")+" |")
	}
}

func number(values map[string]float64, name string) string {
	v, ok := values[name]
	if !ok {
		return ""
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
