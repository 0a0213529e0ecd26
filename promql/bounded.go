package promql

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// bounds are what the text of a query may have; the parser checks them, so they hold for
// every selector and query of the API. 0 is no bound.
type bounds struct {
	textBytes  int // of a query or a selector
	depth      int // of nested expressions: evaluation is recursive
	regexBytes int // of one matcher's regex
}

// boundedParser refuses text that is out of bounds.
type boundedParser struct {
	parser.Parser
	bounds
}

// ParseExpr implements parser.Parser.
func (p *boundedParser) ParseExpr(text string) (parser.Expr, error) {
	if err := p.checkText(text); err != nil {
		return nil, err
	}
	expr, err := p.Parser.ParseExpr(text)
	if err != nil {
		return expr, err
	}
	return expr, p.checkExpr(expr)
}

// ParseMetricSelector implements parser.Parser.
func (p *boundedParser) ParseMetricSelector(text string) ([]*labels.Matcher, error) {
	if err := p.checkText(text); err != nil {
		return nil, err
	}
	ms, err := p.Parser.ParseMetricSelector(text)
	if err != nil {
		return ms, err
	}
	return ms, p.checkMatchers(ms)
}

// ParseMetricSelectors implements parser.Parser.
func (p *boundedParser) ParseMetricSelectors(texts []string) ([][]*labels.Matcher, error) {
	var out [][]*labels.Matcher
	for _, text := range texts {
		ms, err := p.ParseMetricSelector(text)
		if err != nil {
			return nil, err
		}
		out = append(out, ms)
	}
	return out, nil
}

func (p *boundedParser) checkText(text string) error {
	if p.textBytes > 0 && len(text) > p.textBytes {
		return fmt.Errorf("query has %d bytes, at most %d are allowed (query.maxTextBytes)", len(text), p.textBytes)
	}
	return nil
}

// checkExpr walks an expression that checkText let pass, so its depth has a bound.
func (p *boundedParser) checkExpr(expr parser.Expr) error {
	var found error
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		if p.depth > 0 && len(path) >= p.depth {
			found = fmt.Errorf("query nests expressions deeper than %d (query.maxDepth)", p.depth)
		} else if vs, ok := n.(*parser.VectorSelector); ok && found == nil {
			found = p.checkMatchers(vs.LabelMatchers)
		}
		return found
	})
	return found
}

func (p *boundedParser) checkMatchers(ms []*labels.Matcher) error {
	for _, m := range ms {
		regex := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp
		if regex && p.regexBytes > 0 && len(m.Value) > p.regexBytes {
			return fmt.Errorf("regex of label %q has %d bytes, at most %d are allowed (query.maxRegexBytes)", m.Name, len(m.Value), p.regexBytes)
		}
	}
	return nil
}
