package ifeval

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/abadojack/whatlanggo"

	"github.com/repromill/repromill/suites/pytext"
)

// detectable returns the languages of the library that langdetect knows as well,
// so that none it has never heard of wins.
var detectable = sync.OnceValue(func() map[whatlanggo.Lang]bool {
	out := map[whatlanggo.Lang]bool{}
	for lang := range whatlanggo.Langs {
		switch code := iso(lang); code {
		case "af", "ar", "bg", "bn", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu", "he", "hi", "hr", "hu", "id", "it", "ja", "kn", "ko",
			"lt", "lv", "mk", "ml", "mr", "ne", "nl", "no", "pa", "pl", "pt", "ro", "ru", "sl", "so", "sv", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi", "zh":
			out[lang] = true
		}
	}
	return out
})

func iso(lang whatlanggo.Lang) string {
	switch lang {
	case whatlanggo.Pes:
		return "fa"
	case whatlanggo.Nob, whatlanggo.Nno:
		return "no"
	}
	return lang.Iso6391()
}

const swahili = "sw"

// swahiliWords are the most frequent function words of Swahili, which the library
// does not know.
var swahiliWords = map[string]bool{"na": true, "ya": true, "wa": true, "kwa": true, "ni": true, "katika": true, "za": true, "la": true, "cha": true, "kuwa": true,
	"hii": true, "huo": true, "hiyo": true, "yake": true, "wake": true, "watu": true, "pia": true, "lakini": true, "sana": true, "au": true, "kama": true,
	"kwamba": true, "ili": true, "vya": true, "hizi": true, "huu": true, "wao": true, "yetu": true, "kila": true, "baada": true, "mimi": true, "yangu": true}

// known reports whether a language can be told from others.
func known(code string) bool {
	if code == swahili {
		return true
	}
	for lang := range detectable() {
		if iso(lang) == code {
			return true
		}
	}
	return false
}

// longest is how much of a text is looked at, in characters, as upstream does.
const longest = 10_000

// speaks reports whether a text is in a language. Upstream asks langdetect 1.0.9,
// which draws at random and gives short texts now one language and now another;
// here trigrams decide. A text without letters counts as followed, as it does
// there. How often the two disagree is measured by the package's tests.
func speaks(text, code string) bool {
	if utf8.RuneCountInString(text) > longest {
		text = string([]rune(text)[:longest])
	}
	if !strings.ContainsFunc(text, unicode.IsLetter) {
		return true
	}
	lower := pytext.Lower(text)
	if isSwahili(lower) {
		return code == swahili
	}
	info := whatlanggo.DetectWithOptions(lower, whatlanggo.Options{Whitelist: detectable()})
	return info.Lang >= 0 && iso(info.Lang) == code
}

// isSwahili reports whether an eighth of the words are Swahili's function words.
func isSwahili(lower string) bool {
	n, all := 0, 0
	for _, w := range strings.FieldsFunc(lower, func(r rune) bool { return !unicode.IsLetter(r) }) {
		all++
		if swahiliWords[w] {
			n++
		}
	}
	return n >= 2 && 8*n >= all
}
