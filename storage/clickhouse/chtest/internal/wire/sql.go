//go:build linux

package wire

import "strings"

// token returns the next token of s from i, skipping blanks and comments; start==len(s) at the end.
func token(s string, i int) (start, end int) {
	for i < len(s) {
		switch {
		case s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r' || s[i] == '\f':
			i++
		case strings.HasPrefix(s[i:], "--") || strings.HasPrefix(s[i:], "#!") || strings.HasPrefix(s[i:], "# "):
			for i < len(s) && s[i] != '\n' {
				i++
			}
		case strings.HasPrefix(s[i:], "/*"):
			if j := strings.Index(s[i+2:], "*/"); j >= 0 {
				i += j + 4
			} else {
				return len(s), len(s)
			}
		default:
			return i, tokenEnd(s, i)
		}
	}
	return len(s), len(s)
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func tokenEnd(s string, i int) int {
	c := s[i]
	if c == '\'' || c == '`' || c == '"' {
		for j := i + 1; j < len(s); j++ {
			if s[j] == '\\' {
				j++
			} else if s[j] == c {
				if j+1 < len(s) && s[j+1] == c {
					j++
					continue
				}
				return j + 1
			}
		}
		return len(s)
	}
	if !isWord(c) {
		return i + 1
	}
	for i < len(s) && isWord(s[i]) {
		i++
	}
	return i
}

func keyword(s string) string {
	a, b := token(s, 0)
	return strings.ToUpper(s[a:b])
}

// closing returns the index just behind the ')' that matches the '(' at i.
func closing(s string, i int) int {
	depth := 0
	for a, b := token(s, i); a < len(s); a, b = token(s, b) {
		switch s[a:b] {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				return b
			}
		}
	}
	return len(s)
}

type insert struct{ target, cols, settings string }

// parseInsert recognises an INSERT whose rows the client sends as Data blocks.
func parseInsert(q string) (in insert, ok bool) {
	a, b := token(q, 0)
	if !strings.EqualFold(q[a:b], "INSERT") {
		return in, false
	}
	a, b = token(q, b)
	if !strings.EqualFold(q[a:b], "INTO") {
		return in, false
	}
	a, b = token(q, b)
	if strings.EqualFold(q[a:b], "TABLE") {
		a, b = token(q, b)
	}
	from := a
	if strings.EqualFold(q[a:b], "FUNCTION") {
		from = a
		_, b = token(q, b) // the function's name
		p, _ := token(q, b)
		b = closing(q, p)
	} else {
		for {
			n, e := token(q, b)
			if n == len(q) || q[n] != '.' {
				break
			}
			_, b = token(q, e)
		}
	}
	in.target = q[from:b]
	n, e := token(q, b)
	if n < len(q) && q[n] == '(' {
		e = closing(q, n)
		in.cols = q[n+1 : e-1]
		if k := keyword(in.cols); k == "SELECT" || k == "WITH" {
			return in, false
		}
		n, e = token(q, e)
	}
	if strings.EqualFold(q[n:e], "SETTINGS") {
		s := n
		for n < len(q) {
			k := strings.ToUpper(q[n:e])
			if k == "FORMAT" || k == "VALUES" || k == "SELECT" || k == "WITH" || k == ";" {
				break
			}
			n, e = token(q, e)
		}
		in.settings = q[s:n]
	}
	switch strings.ToUpper(q[n:e]) {
	case "FORMAT":
		_, e = token(q, e)
	case "VALUES":
	case "", ";":
		return in, true
	default:
		return in, false
	}
	for n, e = token(q, e); n < len(q); n, e = token(q, e) {
		if q[n] != ';' {
			return in, false // data inline
		}
	}
	return in, true
}

// names splits a column list into unquoted names; ok is false when it holds more than names.
func names(list string) (out []string, ok bool) {
	for _, p := range splitArgs(list) {
		if l := len(p); l > 1 && (p[0] == '`' || p[0] == '"') && p[l-1] == p[0] {
			out = append(out, strings.NewReplacer(`\\`, `\`, "\\`", "`", `\"`, `"`, "``", "`", `""`, `"`).Replace(p[1:l-1]))
			continue
		}
		if _, e := token(p, 0); e != len(p) && !strings.Contains(p, ".") || p == "*" || strings.ContainsAny(p, "() ") {
			return nil, false
		}
		out = append(out, p)
	}
	return out, true
}

// stripFormat drops a trailing FORMAT clause (a native client gets Native whatever it asks for) and ';'.
func stripFormat(q string) string {
	type span struct{ a, b int }
	var last [3]span
	end := len(q)
	for a, b := token(q, 0); a < len(q); a, b = token(q, b) {
		if q[a:b] == ";" {
			continue
		}
		last[0], last[1], last[2] = last[1], last[2], span{a, b}
		end = b
	}
	if f := last[1]; f.b > 0 && strings.EqualFold(q[f.a:f.b], "FORMAT") && last[0].b > 0 && q[last[0].a:last[0].b] != "." && isWord(q[last[2].a]) {
		return q[:f.a]
	}
	return q[:end]
}

func quoteStr(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// unquoteDump reads a Field dump: 'text' with escapes; anything else is returned as it is.
func unquoteDump(s string) string {
	if len(s) < 2 || s[0] != '\'' || s[len(s)-1] != '\'' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s)-1 {
			i++
			switch s[i] {
			case 'n':
				c = '\n'
			case 't':
				c = '\t'
			case 'r':
				c = '\r'
			case '0':
				c = 0
			case 'b':
				c = '\b'
			case 'f':
				c = '\f'
			default:
				c = s[i]
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}
