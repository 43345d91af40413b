package ifbench

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/repromill/repromill/suites/pytext"
)

// ascii decomposes a text and drops what is not ASCII then.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 0x80 {
			return -1
		}
		return r
	}, norm.NFKD.String(s))
}

var europe = strings.Fields("Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam Warsaw London Brussels Prague Luxembourg Paris " +
	"Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana Zagreb")

func capitals(s string) bool {
	n := 0
	for c := range strings.SplitSeq(ascii(s), ",") {
		if c = pytext.Strip(c); c == "" {
			continue
		}
		if n == len(europe) || c != europe[n] {
			return false
		}
		n++
	}
	return n == len(europe)
}

// reverseNewline wants 52 lines from one with Zimbabwe on, in reverse order.
func reverseNewline(s string) bool {
	var all []string
	for _, l := range lines(s) {
		l = strip(l)
		if l != "" && (len(all) > 0 || strings.Contains(l, "Zimbabwe")) {
			all = append(all, ascii(l))
		}
	}
	for i := 1; i < len(all); i++ {
		if all[i] > all[i-1] {
			return false
		}
	}
	return len(all) >= 52
}

func csvCity(s string) bool {
	rows, ok := readCSV(s, ',')
	if !ok || len(rows) != 8 || strings.Join(rows[0], "\x00") != "ID\x00Country\x00City\x00Year\x00Count" {
		return false
	}
	for _, r := range rows[1:] {
		if len(r) != 5 {
			return false
		}
	}
	return true
}

var (
	products = match(`(ProductID|"ProductID"),[ \t]*(Category|"Category"),[ \t]*(Brand|"Brand"),[ \t]*(Price|"Price"),[ \t]*(Stock|"Stock")\z`)
	students = match(`(StudentID|"StudentID")\t *(Subject|"Subject")\t *(Grade|"Grade")\t *(Semester|"Semester")\t *(Score|"Score")\z`)
	special  = match(`".*[^\p{L}\p{N}_` + pytext.Space[1:] + `.*"`)
)

// tripled makes quotation marks survive the reader.
func tripled(s string) string { return strings.ReplaceAll(s, `"`, `"""`) }

func csvSpecial(s string) bool {
	if !products.MatchString(pytext.Strip(lines(s)[0])) {
		return false
	}
	rows, ok := readCSV(tripled(s), ',')
	if !ok || len(rows) != 15 {
		return false
	}
	for _, r := range rows[1:] {
		if len(r) != 5 {
			return false
		}
		for _, f := range r {
			if special.MatchString(f) {
				return true
			}
		}
	}
	return false
}

func csvQuotes(s string) bool {
	if !students.MatchString(pytext.Strip(lines(s)[0])) {
		return false
	}
	rows, ok := readCSV(tripled(s), '\t')
	if !ok || len(rows) != 4 {
		return false
	}
	for _, r := range rows {
		if len(r) != 5 {
			return false
		}
		for _, f := range r {
			if f = pytext.Strip(f); f == "" || f[0] != '"' || f[len(f)-1] != '"' {
				return false
			}
		}
	}
	return true
}

var date = match(`\d{4}-\d{2}-\d{2}\z`)

// decimal is int of digits of any script: each has its ten in a row.
func decimal(s string) int {
	n := 0
	for _, r := range s {
		d := 0
		for unicode.IsDigit(r - rune(d) - 1) {
			d++
		}
		n = 10*n + d%10
	}
	return n
}

func dates(s string) bool {
	for d := range strings.SplitSeq(pytext.Strip(s), ",") {
		if d = pytext.Strip(d); !date.MatchString(d) {
			return false
		}
		p := strings.Split(d, "-")
		year, month, day := decimal(p[0]), decimal(p[1]), decimal(p[2])
		last := 31
		switch month {
		case 4, 6, 9, 11:
			last = 30
		case 2:
			last = 29
		case 0:
			last = 99 // upstream knows no month 0 and looks at no day of it
		}
		if year < 1769 || year > 1821 || month > 12 || day > last {
			return false
		}
	}
	return true
}

// isEmoji reports whether a character alone is an emoji: one of Unicode's
// emoji-test.txt 17.0.
func isEmoji(r rune) bool { return unicode.Is(emojiTable, r) }
