package intake

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// cleanText makes one line of valid UTF-8 without control, formatting and
// direction characters. Markup stays what it is: text.
func cleanText(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	space := false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			space = b.Len() > 0
			continue
		case r == utf8.RuneError, unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp):
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// shorten cuts s to at most limit bytes, at a rune, and marks the cut.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit - len("…")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

var (
	aboutRE    = regexp.MustCompile(`(^|[\s(])~(\d)`) // "~30%" is about, not a tie
	mathRE     = regexp.MustCompile(`\$([^$\s](?:[^$\n]{0,300}[^$\s])?)\$|\\\((.{1,300}?)\\\)`)
	fontRE     = regexp.MustCompile(`\\(?:text(?:bf|it|tt|sc|rm|sf)?|math(?:bf|rm|it|sf|tt|cal|bb|frak)|emph|operatorname\*?|boldsymbol|mbox|textsuperscript|textsubscript|underline|bm)\s*\{([^{}]*)\}`)
	urlMacroRE = regexp.MustCompile(`\\url\s*\{([^{}]*)\}`)
	hrefRE     = regexp.MustCompile(`\\href\s*\{([^{}]*)\}\s*\{([^{}]*)\}`)
	fracRE     = regexp.MustCompile(`\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}`)
	scriptRE   = regexp.MustCompile(`([\^_])\{([^{}]*)\}`)
	commandRE  = regexp.MustCompile(`\\([A-Za-z]+)\*?\s?`)
	texEscapes = strings.NewReplacer(`\%`, "%", `\_`, "_", `\&`, "&", `\#`, "#", `\$`, "＄", `\{`, "(", `\}`, ")",
		`\,`, " ", `\;`, " ", `\:`, " ", `\!`, "", `\ `, " ", "{,}", ",", "{.}", ".", "~", " ")
	texDashes  = strings.NewReplacer("---", "—", "--", "–", "``", "“", "''", "”")
	texSymbols = map[string]string{
		"times": "×", "pm": "±", "mp": "∓", "cdot": "·", "sim": "~", "approx": "≈", "simeq": "≈", "leq": "≤", "le": "≤",
		"geq": "≥", "ge": "≥", "ll": "≪", "gg": "≫", "neq": "≠", "ne": "≠", "rightarrow": "→", "to": "→", "leftarrow": "←",
		"uparrow": "↑", "downarrow": "↓", "infty": "∞", "ldots": "…", "dots": "…", "cdots": "…", "percent": "%", "degree": "°",
		"circ": "°", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "Delta": "Δ", "epsilon": "ε", "varepsilon": "ε",
		"eta": "η", "theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ",
		"phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "Omega": "Ω", "Sigma": "Σ", "ell": "ℓ", "propto": "∝", "div": "÷",
		"left": "", "right": "", "displaystyle": "", "textstyle": "", "quad": " ", "qquad": " ", "bf": "", "it": "", "em": "",
		"rm": "", "tt": "", "sf": "", "sc": "", "textless": "<", "textgreater": ">", "textasciitilde": "~", "textendash": "–", "textemdash": "—",
		"big": "", "Big": "", "bigl": "", "bigr": "", "lvert": "|", "rvert": "|", "mid": "|", "bullet": "•", "star": "*", "ast": "*",
	}
)

// plainTeX makes readable text of the TeX that titles, abstracts and comments
// on arXiv carry: "$5.4\times$ fewer, 31--42\% less" becomes "5.4× fewer,
// 31–42% less". An unknown command keeps its name. Text without TeX comes back
// with its white space normalised.
func plainTeX(s string) string {
	if !strings.ContainsAny(s, `\$`) && !strings.Contains(s, "--") && !strings.ContainsAny(s, "~`") {
		return cleanText(s)
	}
	s = urlMacroRE.ReplaceAllString(hrefRE.ReplaceAllString(s, "$2 ($1)"), "$1")
	// URLs may hold ~ and --, which mean something else in TeX.
	var b strings.Builder
	rest := s
	for {
		at := urlRE.FindStringIndex(rest)
		if at == nil {
			b.WriteString(plainTeXPart(rest))
			break
		}
		b.WriteString(plainTeXPart(rest[:at[0]]))
		b.WriteString(texURLEscapes.Replace(rest[at[0]:at[1]]))
		rest = rest[at[1]:]
	}
	return cleanText(b.String())
}

var texURLEscapes = strings.NewReplacer(`\_`, "_", `\%`, "%", `\#`, "#", `\&`, "&", `\~`, "~", `\-`, "")

func plainTeXPart(s string) string {
	s = aboutRE.ReplaceAllString(s, "$1～$2")
	s = texEscapes.Replace(s)
	s = mathRE.ReplaceAllStringFunc(s, func(m string) string {
		if m[0] == '$' {
			return commands(m[1 : len(m)-1])
		}
		return commands(m[2 : len(m)-2])
	})
	return commands(s)
}

// commands replaces TeX commands and drops braces.
func commands(s string) string {
	for range 3 { // nested groups, as deep as anybody writes them
		s = fontRE.ReplaceAllString(s, "$1")
		s = fracRE.ReplaceAllString(s, "$1/$2")
		s = scriptRE.ReplaceAllString(s, "$1$2")
	}
	s = commandRE.ReplaceAllStringFunc(s, func(c string) string {
		name := strings.TrimRight(strings.TrimPrefix(c, `\`), "* ")
		if sym, ok := texSymbols[name]; ok {
			return sym
		}
		return name + " "
	})
	s = texDashes.Replace(s)
	return strings.Map(func(r rune) rune {
		switch r {
		case '{', '}', '\\':
			return -1
		case '＄':
			return '$'
		case '～':
			return '~'
		}
		return r
	}, s)
}

// mathText reads the alttext of a formula, which is TeX throughout.
func mathText(alt string) string {
	return strings.TrimSpace(plainTeXPart(alt))
}

// commitRE matches a full commit id.
var commitRE = regexp.MustCompile(`^[0-9a-f]{40}$`)
