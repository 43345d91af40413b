package problem

import (
	"regexp"
	"strings"
)

// The sentences of uv's resolver (PubGrub) and of pip. uv wraps them, so they
// are matched on the text with its line breaks taken out.
var (
	noVersionRE = regexp.MustCompile(`(?:there is no version of|only the following versions of|there are no versions of) ([A-Za-z0-9][\w.-]*?)(?:\[[\w,-]*\])?(?:==([^\s,]+))? (?:and|are|is|,)`)
	noMatchRE   = regexp.MustCompile(`No matching distribution found for ([A-Za-z0-9][\w.-]*)(?:\[[\w,-]*\])?(?:==([^\s(;]+))?`)
	noPackageRE = regexp.MustCompile(`([A-Za-z0-9][\w.-]*) was not found in the (?:package registry|cache|provided package locations)`)
	noWheelRE   = regexp.MustCompile(`([A-Za-z0-9][\w.-]*?)(?:\[[\w,-]*\])?==([^\s,]+) has no wheels with a matching (?:Python|platform|ABI)[^,]*?(?:tag|ABI)`)
	noUsableRE  = regexp.MustCompile(`([A-Za-z0-9][\w.-]*?)==([^\s,]+) has no (?:usable wheels|source distribution|wheels that are compatible)`)
	yankedRE    = regexp.MustCompile(`([A-Za-z0-9][\w.-]*?)==([^\s,]+) (?:was|is) yanked`)
	pythonRE    = regexp.MustCompile(`the (?:current|requested) Python version \([^)]+\) does not satisfy`)
	needsPyRE   = regexp.MustCompile(`([A-Za-z0-9][\w.-]*?)(?:\[[\w,-]*\])?==([^\s,]+) depends on (?:one of: )?((?:Python[<>=!~]\S* ?)+)`)
	filteredRE  = regexp.MustCompile("hint: `([A-Za-z0-9][\\w.-]*)` was filtered by `exclude-newer`[^\n]*")
	publishedRE = regexp.MustCompile(`version,? v(\S+?),? was published at`)
	pipPythonRE = regexp.MustCompile(`([^\s;:]+) Requires-Python ([^;\n]+)`)
	dependsRE   = regexp.MustCompile(`([A-Za-z0-9][\w.-]*?)(?:\[[\w,-]*\])?((?:[<>=!~]=?[^\s]+)?) depends on ([A-Za-z0-9][\w.-]*?)(?:\[[\w,-]*\])?([<>=!~]=?[^\s]*)(?: |$)`)
	oneOfRE     = regexp.MustCompile(`depends on one of: ((?:[A-Za-z0-9][\w.\[\]-]*?[<>=!~]=?[^\s]* )+)`)
	requireRE   = regexp.MustCompile(`you require ([A-Za-z0-9][\w.-]*?)(?:\[[\w,-]*\])?==([^\s,]+?),? `)
	atomRE      = regexp.MustCompile(`^([A-Za-z0-9][\w.-]*?)(?:\[[\w,-]*\])?([<>=!~]=?.*)$`)
	pipConflict = regexp.MustCompile(`(?m)^\s+([A-Za-z0-9][\w.-]*) (\S+) depends on ([A-Za-z0-9][\w.-]*)([<>=!~]=?\S*)`)
	pipUserRE   = regexp.MustCompile(`(?m)^\s+The user requested ([A-Za-z0-9][\w.-]*)==(\S+)`)
)

// resolution reads why no set of versions could be found.
func resolution(text string, add func(Problem)) {
	for _, m := range noMatchRE.FindAllStringSubmatch(text, -1) {
		add(Problem{Kind: NoVersion, Package: normal(m[1]), Version: m[2], Text: m[0]})
	}
	i := strings.Index(text, "No solution found")
	if i < 0 {
		pip(text, add)
		return
	}
	flat := strings.Join(strings.Fields(text[i:]), " ") + " "
	for _, m := range noVersionRE.FindAllStringSubmatch(flat, -1) {
		add(Problem{Kind: NoVersion, Package: normal(m[1]), Version: m[2], Text: sentence(flat, m[0])})
	}
	for _, m := range yankedRE.FindAllStringSubmatch(flat, -1) {
		add(Problem{Kind: NoVersion, Package: normal(m[1]), Version: m[2], Text: sentence(flat, m[0])})
	}
	for _, m := range noPackageRE.FindAllStringSubmatch(flat, -1) {
		add(Problem{Kind: NoPackage, Package: normal(m[1]), Text: sentence(flat, m[0])})
	}
	for _, re := range []*regexp.Regexp{noWheelRE, noUsableRE} {
		for _, m := range re.FindAllStringSubmatch(flat, -1) {
			add(Problem{Kind: NoWheel, Package: normal(m[1]), Version: m[2], Text: sentence(flat, m[0])})
		}
	}
	if pythonRE.MatchString(flat) {
		for _, m := range needsPyRE.FindAllStringSubmatch(flat, -1) {
			var needs []string
			for _, s := range strings.Fields(m[3]) {
				needs = append(needs, clean(strings.TrimPrefix(s, "Python")))
			}
			add(Problem{Kind: RequiresPython, Package: normal(m[1]), Version: m[2], Needs: needs, Text: m[0]})
		}
	}
	for _, m := range filteredRE.FindAllStringSubmatch(text, -1) {
		p := Problem{Kind: NoDates, Package: normal(m[1]), Text: m[0]}
		if strings.Contains(m[0], "published at") {
			p.Kind = TooNew
			if v := publishedRE.FindStringSubmatch(m[0]); v != nil {
				p.Version = v[1]
			}
		}
		add(p)
	}
	conflicts(flat, add)
}

// sentence is the one that a match stands in.
func sentence(flat, match string) string {
	i := strings.Index(flat, match)
	j := strings.Index(flat[i:], ". ")
	if j < 0 {
		j = len(flat) - i
	}
	return strings.TrimSuffix(flat[i:i+j], " ")
}

// conflicts finds the fixed versions that others do not go with.
func conflicts(flat string, add func(Problem)) {
	fixed := map[string]string{}
	for _, m := range requireRE.FindAllStringSubmatch(flat, -1) {
		fixed[normal(m[1])] = m[2]
	}
	report := func(by, name string, needs []string, at string) {
		if v, ok := fixed[normal(name)]; ok && normal(by) != normal(name) {
			add(Problem{Kind: Conflict, Package: normal(name), Version: v, By: normal(by), Needs: needs, Text: at})
		}
	}
	for _, m := range dependsRE.FindAllStringSubmatch(flat, -1) {
		report(m[1], m[3], []string{clean(m[4])}, m[0])
	}
	for _, m := range oneOfRE.FindAllStringSubmatchIndex(flat, -1) {
		by := flat[:m[0]]
		by = by[strings.LastIndexByte(strings.TrimSuffix(by, " "), ' ')+1:]
		who := atomRE.FindStringSubmatch(strings.TrimSpace(by))
		var needs []string
		name := ""
		for _, s := range strings.Fields(flat[m[2]:m[3]]) {
			if a := atomRE.FindStringSubmatch(s); a != nil && (name == "" || a[1] == name) {
				name, needs = a[1], append(needs, clean(a[2]))
			}
		}
		if who != nil && name != "" {
			report(who[1], name, needs, flat[m[0]:m[1]])
		}
	}
}

func clean(clauses string) string { return strings.TrimRight(clauses, ",. ") }

// pip reads the words of pip's resolver.
func pip(text string, add func(Problem)) {
	fixed := map[string]string{}
	for _, m := range pipUserRE.FindAllStringSubmatch(text, -1) {
		fixed[normal(m[1])] = m[2]
	}
	for _, m := range pipConflict.FindAllStringSubmatch(text, -1) {
		if v, ok := fixed[normal(m[3])]; ok {
			add(Problem{Kind: Conflict, Package: normal(m[3]), Version: v, By: normal(m[1]), Needs: []string{clean(m[4])}, Text: m[0]})
		}
	}
	p := noMatchRE.FindStringSubmatch(text)
	if p == nil {
		return
	}
	for _, m := range pipPythonRE.FindAllStringSubmatch(text, -1) {
		if m[1] == p[2] {
			add(Problem{Kind: RequiresPython, Package: normal(p[1]), Version: p[2], Needs: []string{strings.TrimSpace(m[2])}, Text: m[0]})
			return
		}
	}
}
