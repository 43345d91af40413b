package python

import (
	"strings"
)

// Print is one statement that writes a line of text, as a template.
type Print struct {
	Parts []Part
	Line  int
	Func  string // enclosing function, "" at module level
	Via   string // print|log|file
}

// Part is a stretch of literal text or one formatted value.
type Part struct {
	Text string // literal text; empty for a value
	Expr string // source of a value; empty for text
	Spec string // format such as ".2f" or ".1%"
}

// Write is one statement that writes a file.
type Write struct {
	Format string // json|jsonl|csv|text|other
	Path   string // the literal path or file name when one stands in the statement or near it
	From   string // source of what is written
	Target string // source of where it is written to
	Line   int
	tree   []Token
}

// Dict is a dictionary with string keys, as far as it can be read statically.
type Dict struct {
	Keys []Key
	Line int
}

// Key is one entry of a dictionary.
type Key struct {
	Name  string
	Value Expr
	Sub   *Dict // the value is itself a dictionary display
	Line  int
}

func isPrint(last, full string) bool {
	switch last {
	case "print", "pprint", "echo", "tqdm_write":
		return true
	case "info", "warning", "debug", "log_info", "critical", "error":
		return strings.Contains(strings.ToLower(full), "log")
	case "write":
		return full == "sys.stdout.write" || full == "tqdm.write"
	}
	return false
}

// maxPrints bounds how many print templates of one module are kept.
const maxPrints = 2000

func (s *scanner) print(t Token, args []arg) {
	if len(s.m.Prints) >= maxPrints {
		return
	}
	p := Print{Line: t.Line, Via: "print"}
	if t.Text != "print" && t.Text != "pprint" && t.Text != "echo" {
		p.Via = "log"
	}
	if n := len(s.fn); n > 0 {
		p.Func = s.fn[n-1].name
	}
	sep := " "
	for _, a := range args {
		if a.key == "sep" {
			if v, ok := text1(a.value); ok {
				sep = v
			}
		}
		if a.key == "file" && strings.Contains(source(a.value), "stderr") {
			p.Via = "stderr"
		} else if a.key == "file" {
			p.Via = "file"
		}
	}
	if format, rest, ok := lazyFormat(p.Via, args); ok {
		p.Parts = percent(format, rest)
		args = nil
	}
	for _, a := range args {
		if a.key != "" {
			continue
		}
		if len(p.Parts) > 0 {
			p.Parts = append(p.Parts, Part{Text: sep})
		}
		p.Parts = append(p.Parts, template(a.value)...)
	}
	p.Parts = mergeText(p.Parts)
	if len(p.Parts) > 0 {
		s.m.Prints = append(s.m.Prints, p)
	}
}

// lazyFormat recognises the calls of a logger that give a format and its values
// as arguments of their own.
func lazyFormat(via string, args []arg) (string, []arg, bool) {
	if via != "log" || len(args) < 2 || args[0].key != "" || args[1].key != "" {
		return "", nil, false
	}
	text, ok := text1(args[0].value)
	return text, args[1:], ok && strings.Contains(text, "%")
}

// template turns the tokens of one printed expression into parts. An
// expression that is no string is one value.
func template(toks []Token) []Part {
	// "..." % x and "...".format(x)
	strEnd := 0
	for strEnd < len(toks) && toks[strEnd].Kind == String {
		strEnd++
	}
	if strEnd == 0 {
		if len(toks) > 3 && toks[0].Text == "str" && toks[1].Text == "(" && toks[len(toks)-1].Depth == toks[1].Depth {
			toks = toks[2 : len(toks)-1]
		}
		return []Part{{Expr: source(toks)}}
	}
	var parts []Part
	rest := toks[strEnd:]
	switch {
	case len(rest) > 1 && rest[0].Text == "%":
		text, _ := text1(toks[:strEnd])
		parts = percent(text, percentArgs(rest[1:]))
	case len(rest) > 2 && rest[0].Text == "." && rest[1].Text == "format":
		text, _ := text1(toks[:strEnd])
		var args []arg
		if len(rest) > 3 {
			args = splitArgs(rest[3:len(rest)-1], rest[2].Depth+1)
		}
		parts = braces(text, args, false)
	default:
		for _, t := range toks[:strEnd] {
			if strings.Contains(t.Prefix, "f") {
				parts = append(parts, braces(t.Text, nil, true)...)
			} else {
				parts = append(parts, Part{Text: t.Text})
			}
		}
		if len(rest) > 1 && rest[0].Text == "+" {
			parts = append(parts, concat(rest[1:])...)
		}
	}
	return mergeText(parts)
}

func concat(toks []Token) []Part {
	if len(toks) == 0 {
		return nil
	}
	d := toks[0].Depth
	for i, t := range toks {
		if t.Text == "+" && t.Depth == d {
			return append(template(toks[:i]), concat(toks[i+1:])...)
		}
	}
	return template(toks)
}

func percentArgs(toks []Token) []arg {
	if len(toks) > 2 && toks[0].Text == "(" {
		return splitArgs(toks[1:len(toks)-1], toks[0].Depth+1)
	}
	return []arg{{value: toks}}
}

// percent reads printf-style conversions.
func percent(text string, args []arg) []Part {
	var parts []Part
	n := 0
	for len(text) > 0 {
		i := strings.IndexByte(text, '%')
		if i < 0 || i+1 >= len(text) {
			parts = append(parts, Part{Text: text})
			break
		}
		if i > 0 {
			parts = append(parts, Part{Text: text[:i]})
		}
		if text[i+1] == '%' {
			parts = append(parts, Part{Text: "%"})
			text = text[i+2:]
			continue
		}
		j := i + 1
		if text[j] == '(' {
			if k := strings.IndexByte(text[j:], ')'); k > 0 {
				j += k + 1
			}
		}
		for j < len(text) && strings.IndexByte("0123456789.+-# ", text[j]) >= 0 {
			j++
		}
		if j >= len(text) || strings.IndexByte("diouxXeEfFgGcrsa", text[j]) < 0 {
			parts = append(parts, Part{Text: text[i : i+1]})
			text = text[i+1:]
			continue
		}
		p := Part{Expr: "?", Spec: text[i+1 : j+1]}
		if n < len(args) {
			p.Expr = source(args[n].value)
		}
		n++
		parts = append(parts, p)
		text = text[j+1:]
	}
	return parts
}

// braces reads {…} fields of a format string. In an f-string the field is the
// expression; otherwise it names or counts an argument.
func braces(text string, args []arg, fstring bool) []Part {
	var parts []Part
	n := 0
	for len(text) > 0 {
		i := strings.IndexAny(text, "{}")
		if i < 0 {
			parts = append(parts, Part{Text: text})
			break
		}
		if i > 0 {
			parts = append(parts, Part{Text: text[:i]})
		}
		if i+1 < len(text) && text[i+1] == text[i] {
			parts = append(parts, Part{Text: text[i : i+1]})
			text = text[i+2:]
			continue
		}
		end := fieldEnd(text[i:])
		if text[i] == '}' || end < 0 {
			text = text[i+1:]
			continue
		}
		field := text[i+1 : i+end]
		text = text[i+end+1:]
		expr, spec := splitField(field)
		label := ""
		if fstring && strings.HasSuffix(strings.TrimSpace(expr), "=") && !strings.HasSuffix(strings.TrimSpace(expr), "==") {
			label = expr
			expr = strings.TrimSuffix(strings.TrimSpace(expr), "=")
		}
		if !fstring {
			expr, n = formatArg(expr, args, n)
		}
		if label != "" {
			parts = append(parts, Part{Text: label})
		}
		if expr = strings.TrimSpace(expr); expr == "" {
			expr = "?"
		}
		parts = append(parts, Part{Expr: expr, Spec: spec})
	}
	return parts
}

func formatArg(field string, args []arg, n int) (string, int) {
	k := n
	if field == "" {
		n++
	} else if c := field[0]; isDigit(c) {
		k = int(c - '0')
	} else {
		for _, a := range args {
			if a.key == field {
				return source(a.value), n
			}
		}
		return field, n
	}
	if k < len(args) {
		return source(args[k].value), n
	}
	return "?", n
}

// fieldEnd is the index of the brace that closes the field at text[0], or -1.
func fieldEnd(text string) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[', '(':
			depth++
		case '}', ']', ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// splitField parts an expression from its conversion and format spec.
func splitField(f string) (expr, spec string) {
	depth := 0
	var quote byte
	for i := 0; i < len(f); i++ {
		c := f[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '(' || c == '[' || c == '{':
			depth++
		case c == ')' || c == ']' || c == '}':
			depth--
		case depth == 0 && c == '!' && i+1 < len(f) && f[i+1] != '=':
			_, spec, _ = strings.Cut(f[i:], ":")
			return f[:i], spec
		case depth == 0 && c == ':':
			return f[:i], f[i+1:]
		}
	}
	return f, ""
}

func mergeText(parts []Part) []Part {
	var out []Part
	for _, p := range parts {
		if p.Expr == "" && len(out) > 0 && out[len(out)-1].Expr == "" {
			out[len(out)-1].Text += p.Text
			continue
		}
		if p.Expr != "" || p.Text != "" {
			out = append(out, p)
		}
	}
	return out
}
