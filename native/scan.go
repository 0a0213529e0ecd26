package native

import (
	"errors"
	"io"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// window is a sliding view of the body: the decoder works on contiguous bytes
// without asking at each byte whether more must be read.
type window struct {
	r        io.Reader
	buf      []byte
	pos, end int   // buf[pos:end] is unread
	off      int64 // position of buf[0] in the body
	eof      bool
}

// minWindow is how much the decoder has before it whenever it begins an element:
// more than a metric has in practice. A longer one makes the window grow.
const minWindow = 64 << 10

func (w *window) reset(r io.Reader) {
	if w.buf == nil {
		w.buf = make([]byte, 4*minWindow)
	}
	w.r, w.pos, w.end, w.off, w.eof = r, 0, 0, 0, false
}

// fill makes at least n bytes unread, fewer only at the end of the body.
func (w *window) fill(n int) error {
	if w.eof || w.end-w.pos >= n {
		return nil
	}
	if n > len(w.buf) {
		grown := make([]byte, 2*n)
		copy(grown, w.buf[w.pos:w.end])
		w.buf, w.off, w.end, w.pos = grown, w.off+int64(w.pos), w.end-w.pos, 0
	} else if w.pos > 0 {
		copy(w.buf, w.buf[w.pos:w.end])
		w.off, w.end, w.pos = w.off+int64(w.pos), w.end-w.pos, 0
	}
	for idle := 0; w.end < n; {
		k, err := w.r.Read(w.buf[w.end:])
		w.end += k
		if errors.Is(err, io.EOF) {
			w.eof = true
			return nil
		}
		if err != nil {
			return err
		}
		if k > 0 {
			idle = 0
		} else if idle++; idle > 100 {
			return io.ErrNoProgress
		}
	}
	return nil
}

// errMore says that the window ended inside an element while the body goes on.
var errMore = errors.New("the element is longer than the window")

// syntaxError is JSON that is not valid; at is the position in the body.
type syntaxError struct {
	msg string
	at  int64
}

func (e *syntaxError) Error() string {
	return e.msg + " at byte " + strconv.FormatInt(e.at, 10)
}

// scanner reads JSON tokens of one window. Strings that it returns share the
// window or scratch and are valid until the next element.
type scanner struct {
	window
	scratch []byte // unescaped strings of the current element
}

// fail is a syntax error at the current position, or what explains it: the window
// or the body that ends too early.
func (s *scanner) fail(msg string) error {
	if s.pos >= s.end {
		if !s.eof {
			return errMore
		}
		return &syntaxError{"unexpected end of the body, " + msg, s.off + int64(s.pos)}
	}
	return &syntaxError{msg + ", found " + quoteByte(s.buf[s.pos]), s.off + int64(s.pos)}
}

func quoteByte(c byte) string {
	if c < utf8.RuneSelf {
		return strconv.QuoteRune(rune(c))
	}
	return "byte 0x" + strconv.FormatUint(uint64(c), 16)
}

// peek skips white space and returns the next byte without taking it, 0 at the
// end of the window (0 is no byte of valid JSON outside strings).
func (s *scanner) peek() byte {
	buf := s.buf[:s.end]
	for p := s.pos; p < len(buf); p++ {
		if c := buf[p]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			s.pos = p
			return c
		}
	}
	s.pos = s.end
	return 0
}

// peekFill is peek that reads on over white space of any length.
func (s *scanner) peekFill() (byte, error) {
	for {
		c := s.peek()
		if s.pos < s.end || s.eof {
			return c, nil
		}
		if err := s.fill(minWindow); err != nil {
			return 0, err
		}
	}
}

// expect takes byte c after white space.
func (s *scanner) expect(c byte) error {
	if s.peek() != c || s.pos >= s.end {
		return s.fail("expected " + quoteByte(c))
	}
	s.pos++
	return nil
}

// plain tells which bytes stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != '"' && c != '\\'
	}
	return t
}()

// str takes a string. It says whether there are bytes beyond ASCII in it, which
// are not checked here.
func (s *scanner) str() (text string, wide bool, err error) {
	if s.peek() != '"' || s.pos >= s.end {
		return "", false, s.fail("expected a string")
	}
	buf := s.buf[:s.end]
	start := s.pos + 1
	var or byte
	for p := start; p < len(buf); p++ {
		c := buf[p]
		if plain[c] {
			or |= c
			continue
		}
		if c == '"' {
			s.pos = p + 1
			return view(buf[start:p]), or >= utf8.RuneSelf, nil
		}
		s.pos = p
		if c == '\\' {
			return s.escaped(start)
		}
		return "", false, &syntaxError{"control character in a string must be escaped, found " + quoteByte(c), s.off + int64(p)}
	}
	s.pos = s.end
	return "", false, s.fail("expected the end of a string")
}

// escaped takes the rest of a string from its first backslash on.
func (s *scanner) escaped(start int) (string, bool, error) {
	from := len(s.scratch)
	s.scratch = append(s.scratch, s.buf[start:s.pos]...)
	for s.pos < s.end {
		c := s.buf[s.pos]
		switch {
		case plain[c]:
			s.scratch = append(s.scratch, c)
			s.pos++
		case c == '"':
			s.pos++
			return view(s.scratch[from:]), true, nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return "", false, err
			}
		default:
			return "", false, s.fail("control character in a string must be escaped")
		}
	}
	return "", false, s.fail("expected the end of a string")
}

func (s *scanner) escape() error {
	s.pos++
	if s.pos >= s.end {
		return s.fail("expected an escape")
	}
	c := s.buf[s.pos]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		return s.unicodeEscape()
	default:
		return s.fail("unknown escape in a string")
	}
	s.pos++
	s.scratch = append(s.scratch, c)
	return nil
}

// unicodeEscape takes \uXXXX, and the second half of a surrogate pair. Half a
// pair becomes a byte that is not UTF-8, so that the text is refused as such: to
// replace it in silence would let different texts become one.
func (s *scanner) unicodeEscape() error {
	s.pos++
	r, err := s.hex4()
	if err != nil {
		return err
	}
	if utf16.IsSurrogate(r) {
		if s.end-s.pos < 2 && !s.eof {
			s.pos = s.end
			return errMore
		}
		if s.end-s.pos >= 2 && s.buf[s.pos] == '\\' && s.buf[s.pos+1] == 'u' {
			mark := s.pos
			s.pos += 2
			low, err := s.hex4()
			if err != nil {
				return err
			}
			if full := utf16.DecodeRune(r, low); full != utf8.RuneError {
				s.scratch = utf8.AppendRune(s.scratch, full)
				return nil
			}
			s.pos = mark
		}
		s.scratch = append(s.scratch, 0xff)
		return nil
	}
	s.scratch = utf8.AppendRune(s.scratch, r)
	return nil
}

func (s *scanner) hex4() (rune, error) {
	var r rune
	for range 4 {
		if s.pos >= s.end {
			return 0, s.fail("expected a hexadecimal digit")
		}
		c := s.buf[s.pos]
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, s.fail("expected a hexadecimal digit")
		}
		s.pos++
	}
	return r, nil
}

// number is a JSON number as it was written.
type number struct {
	text     string
	mantissa uint64 // all digits, valid if exact
	scale    int    // digits after the point
	neg      bool
	exact    bool // at most 15 digits and no exponent: mantissa / 10^scale is it
}

var pow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// num takes a number and checks JSON's grammar.
func (s *scanner) num() (number, error) {
	var n number
	buf := s.buf[:s.end]
	start, p := s.pos, s.pos
	if p < len(buf) && buf[p] == '-' {
		n.neg = true
		p++
	}
	first, digits := p, 0
	for ; p < len(buf) && isDigit(buf[p]); p++ {
		n.mantissa = n.mantissa*10 + uint64(buf[p]-'0')
		digits++
	}
	if digits == 0 || digits > 1 && buf[first] == '0' {
		s.pos = min(first+digits, s.end)
		if digits > 1 {
			s.pos = first
			return n, &syntaxError{"a number must not begin with 0", s.off + int64(first)}
		}
		return n, s.fail("expected a digit")
	}
	n.exact = true
	if p < len(buf) && buf[p] == '.' {
		point := p
		for p++; p < len(buf) && isDigit(buf[p]); p++ {
			n.mantissa = n.mantissa*10 + uint64(buf[p]-'0')
		}
		n.scale = p - point - 1
		digits += n.scale
		if n.scale == 0 {
			s.pos = p
			return n, s.fail("expected a digit after the point")
		}
	}
	if p < len(buf) && buf[p]|0x20 == 'e' {
		n.exact = false
		if p++; p < len(buf) && (buf[p] == '+' || buf[p] == '-') {
			p++
		}
		expStart := p
		for p < len(buf) && isDigit(buf[p]) {
			p++
		}
		if p == expStart {
			s.pos = p
			return n, s.fail("expected a digit of the exponent")
		}
	}
	s.pos = p
	if p == len(buf) && !s.eof {
		return n, errMore // the number may go on
	}
	n.exact = n.exact && digits <= 15
	n.text = view(buf[start:p])
	return n, nil
}

// float returns the nearest float; beyond the range it is an infinity.
func (n number) float() float64 {
	if n.exact {
		// Both operands are exact, so the one rounding of the division gives the
		// nearest float.
		f := float64(n.mantissa) / pow10[n.scale]
		if n.neg {
			return -f // keeps the sign of -0
		}
		return f
	}
	f, _ := strconv.ParseFloat(n.text, 64)
	return f
}

// integer returns the number if it is a whole one that a float holds exactly.
func (n number) integer() (int64, bool) {
	if n.exact && n.scale == 0 {
		if n.neg {
			return -int64(n.mantissa), true
		}
		return int64(n.mantissa), true
	}
	f := n.float()
	if f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// literal takes one of true, false and null.
func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if s.pos >= s.end || s.buf[s.pos] != word[i] {
			return s.fail("expected " + word)
		}
		s.pos++
	}
	return nil
}

// maxDepth bounds the nesting of values that are skipped.
const maxDepth = 32

// skip takes any value, checks its syntax and says what it is.
func (s *scanner) skip(depth int) (what string, err error) {
	if depth > maxDepth {
		return "", s.fail("values are nested too deeply")
	}
	switch c := s.peek(); {
	case c == '"':
		_, _, err = s.str()
		return "a string", err
	case c == '-' || isDigit(c):
		_, err = s.num()
		return "a number", err
	case c == '{':
		return "an object", s.skipObject(depth)
	case c == '[':
		return "an array", s.skipArray(depth)
	case c == 't':
		return "true", s.literal("true")
	case c == 'f':
		return "false", s.literal("false")
	case c == 'n':
		return "null", s.literal("null")
	case c == 'N' || c == 'I':
		return "", s.fail("expected a value (NaN and Infinity are not JSON)")
	default:
		return "", s.fail("expected a value")
	}
}

func (s *scanner) skipObject(depth int) error {
	return s.object(func(string, bool) error {
		_, err := s.skip(depth + 1)
		return err
	})
}

func (s *scanner) skipArray(depth int) error {
	s.pos++
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for {
		if _, err := s.skip(depth + 1); err != nil {
			return err
		}
		if s.peek() == ',' {
			s.pos++
			continue
		}
		return s.expect(']')
	}
}

// object takes an object; field is called with each key, behind the colon, and
// takes the value.
func (s *scanner) object(field func(key string, wide bool) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		key, wide, err := s.str()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		s.peek()
		if err := field(key, wide); err != nil {
			return err
		}
		if s.peek() == ',' {
			s.pos++
			continue
		}
		return s.expect('}')
	}
}

// view returns b as a string without a copy.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
