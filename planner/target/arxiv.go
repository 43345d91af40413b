package target

import (
	"net/url"
	"regexp"
	"strings"
)

// The grammar follows arXiv's own parser (arXiv/arxiv-base
// arxiv/identifier/__init__.py); the archive list is that of
// arxiv/taxonomy/definitions.py without its test entries. The list is needed:
// by its shape alone "org/9609001" would be an old id.
var (
	newIDRE = regexp.MustCompile(`^(\d{2})(\d{2})\.(\d{4,5})([vV][1-9]\d{0,3})?$`)
	oldIDRE = regexp.MustCompile(`^([A-Za-z]+(?:-[A-Za-z]+)?)(?:\.[A-Za-z-]{2,})?/(\d{2})(\d{2})(\d{3})([vV][1-9]\d{0,3})?$`)

	nearNewRE = regexp.MustCompile(`^\d{3,5}\.\d{3,6}(?:[^\d].*)?$`)
	nearOldRE = regexp.MustCompile(`^([A-Za-z-]+)(?:\.[A-Za-z-]+)?/\d{6,8}(\D.*)?$`)
	nearRE    = regexp.MustCompile(`^(?:(?i:arxiv)[-_.]?)?\d{7,9}(?:[vV]\d*)?$|^(?i:arxiv)[-_.]?\d{4}\.\d{3,6}(?:[vV]\d*)?$`)

	stampRE = regexp.MustCompile(`^(\S+)\s+\[[A-Za-z-]+(?:\.[A-Za-z-]+)?\](?:\s+\d{1,2}\s+[A-Z][a-z]{2}\s+\d{4})?$`)
	doiRE   = regexp.MustCompile(`^10\.\d{4,9}/`)

	archives = set("acc-phys adap-org alg-geom ao-sci astro-ph atom-ph bayes-an chao-dyn chem-ph cmp-lg comp-gas " +
		"cond-mat cs dg-ga econ eess funct-an gr-qc hep-ex hep-lat hep-ph hep-th math math-ph mtrl-th nlin nucl-ex " +
		"nucl-th patt-sol physics plasm-ph q-alg q-bio q-fin quant-ph solv-int stat supr-con")

	// arxivRoutes are the first path segments of a page about one paper.
	arxivRoutes = set("abs pdf html format src e-print ps dvi bibtex tb refs cits audio other")
	// arxivTails are the routes below which files of a paper live.
	arxivTails = set("html src e-print")
	// idKeys are query keys that carry an arXiv id on one site or another.
	idKeys = []string{"id", "arxiv_id", "arxivId", "universalId", "id_list", "paper_arxiv_id"}

	suffixes = []string{".tar.gz", ".ps.gz", ".pdf", ".md", ".ps", ".gz"}
)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// ParseArXiv reads an arXiv id with an optional version and nothing around it
// but an "arXiv:" prefix or a file suffix. The version is "v2" or empty.
// Every error is an [*Error].
func ParseArXiv(s string) (id, version string, err error) {
	id, version, err = arxivID(s)
	if err != nil {
		return "", "", asError(s, err)
	}
	return id, version, nil
}

// arxivID returns the canonical id: the archive in lower case and without
// subject class, the version with a small v.
func arxivID(s string) (id, version string, err error) {
	orig := s
	s, _ = cutPrefixFold(s, "arxiv:")
	s = strings.Trim(s, "/")
	for _, suffix := range suffixes {
		if strings.HasSuffix(strings.ToLower(s), suffix) {
			s = s[:len(s)-len(suffix)]
			break
		}
	}
	s = strings.ReplaceAll(strings.ReplaceAll(s, "//", "/"), "--", "-")
	if m := newIDRE.FindStringSubmatch(s); m != nil {
		return checkNew(m[1], m[2], m[3], strings.ToLower(m[4]))
	}
	if m := oldIDRE.FindStringSubmatch(s); m != nil {
		return checkOld(strings.ToLower(m[1]), m[2], m[3], m[4], strings.ToLower(m[5]))
	}
	switch {
	case nearNewRE.MatchString(s):
		return "", "", refuse("%s looks like an arXiv id but is not YYMM.NNNNN with an optional version v1, v2, …", Quote(s))
	case nearOld(s):
		return "", "", refuse("%s looks like an old arXiv id but is not archive/YYMMNNN with an optional version v1, v2, …", Quote(s))
	case nearRE.MatchString(s):
		return "", "", refuse("%s looks like an arXiv id but its dot, its archive or the colon after arXiv is missing", Quote(s))
	}
	return "", "", refuse("%s is not an arXiv id", Quote(orig))
}

func checkNew(yy, mm, num, version string) (string, string, error) {
	id := yy + mm + "." + num
	switch yymm := yy + mm; {
	case mm < "01" || mm > "12":
		return "", "", refuse("%s looks like an arXiv id but has the month %s", id, mm)
	case yymm < "0704":
		return "", "", refuse("%s looks like an arXiv id but ids of this form begin with 0704 (April 2007); older ones are archive/YYMMNNN", id)
	case yy >= "91":
		return "", "", refuse("%s looks like an arXiv id but ids of 19%s are archive/YYMMNNN", id, yy)
	case yymm <= "1412" && len(num) != 4:
		return "", "", refuse("%s looks like an arXiv id but numbers up to 1412 have four digits", id)
	case yymm >= "1501" && len(num) != 5:
		return "", "", refuseFix("did you mean "+yymm+".0"+num+version+"?", "%s looks like an arXiv id but numbers from 1501 on have five digits", id)
	case strings.Trim(num, "0") == "":
		return "", "", refuse("%s looks like an arXiv id but there is no number 0", id)
	}
	return id, version, nil
}

func checkOld(archive, yy, mm, num, version string) (string, string, error) {
	id := archive + "/" + yy + mm + num
	switch {
	case !archives[archive]:
		return "", "", refuseFix("for a hub model of this name write hf://"+id, "%s looks like an old arXiv id but there is no archive %s", id, archive)
	case mm < "01" || mm > "12":
		return "", "", refuse("%s looks like an arXiv id but has the month %s", id, mm)
	case yy < "91" && yy+mm > "0703":
		return "", "", refuse("%s looks like an arXiv id but ids of this form ended with 0703 (March 2007)", id)
	case num == "000":
		return "", "", refuse("%s looks like an arXiv id but there is no number 0", id)
	}
	return id, version, nil
}

// nearArXiv reports strings that a careless eye would take for an arXiv id,
// valid ones among them.
func nearArXiv(s string) bool {
	return nearNewRE.MatchString(s) || nearOld(s) || nearRE.MatchString(s)
}

// nearOld takes anything after a real archive for a slip of the pen, but only
// digits with a version after another word: "org/20240131-model" is a hub model.
func nearOld(s string) bool {
	m := nearOldRE.FindStringSubmatch(s)
	return m != nil && (archives[strings.ToLower(m[1])] || strings.Trim(m[2], "vV0123456789") == "")
}

// arxivTarget reads an id, perhaps with the stamp of a title page behind it:
// "2604.08075v2 [cs.LG] 9 Apr 2026".
func arxivTarget(s string) (Target, error) {
	if m := stampRE.FindStringSubmatch(s); m != nil {
		s = m[1]
	}
	id, version, err := arxivID(s)
	if err != nil {
		return Target{}, err
	}
	return Target{Kind: ArXiv, ID: id, Version: version, URL: "https://arxiv.org/abs/" + id + version}, nil
}

// parseDOI reads arXiv's DOIs (prefix 10.48550), which never carry a version
// (arXiv/arxiv-docs source/help/doi.md).
func parseDOI(s string) (Target, error) {
	rest, ok := cutPrefixFold(s, "10.48550/arxiv.")
	if !ok {
		return Target{}, refuse("only the DOIs of arXiv (10.48550/arXiv.…) name a paper here")
	}
	t, err := arxivTarget(rest)
	if err == nil && t.Version != "" {
		return Target{}, refuseFix("write "+t.ID+t.Version+" for that version", "a DOI of arXiv has no version")
	}
	return t, err
}

// arxivSite reads the path of arxiv.org and of the sites that keep its paths.
func arxivSite(segs []string, q url.Values) (Target, error) {
	segs = resplit(segs)
	if len(segs) == 0 {
		return Target{}, refuse("the address names no paper")
	}
	if segs[0] == "api" {
		return idFromQuery(q)
	}
	if segs[0] == "ftp" && len(segs) >= 5 && segs[2] == "papers" {
		last := segs[len(segs)-1]
		if segs[1] != "arxiv" {
			last = segs[1] + "/" + last
		}
		return arxivTarget(last)
	}
	verb, rest := "", segs
	if arxivRoutes[segs[0]] {
		verb, rest = segs[0], segs[1:]
	}
	if len(rest) == 0 {
		return Target{}, refuse("the address names no paper")
	}
	n := 1
	if len(rest) > 1 && !newIDRE.MatchString(rest[0]) && !nearNewRE.MatchString(rest[0]) {
		n = 2
	}
	if verb == "" && !nearArXiv(strings.Join(rest[:n], "/")) {
		return Target{}, refuse("the page /%s of arXiv is not about one paper", segs[0])
	}
	if tail := rest[n:]; len(tail) > 0 && !arxivTails[verb] {
		return Target{}, refuse("%s follows the arXiv id", Quote("/"+strings.Join(tail, "/")))
	}
	return arxivTarget(strings.Join(rest[:n], "/"))
}

// mirrorSite finds the one id in the address of a page that is not arXiv's
// own: a path segment, a pair of segments, or the value of a known query key.
// Two different ids are ambiguous and refused.
func mirrorSite(host string, segs []string, q url.Values) (Target, error) {
	segs = resplit(segs)
	var found Target
	var near error
	consider := func(s string) error {
		t, err := arxivTarget(s)
		switch {
		case err != nil:
			if near == nil && nearArXiv(s) {
				near = err
			}
		case found.ID == "" || found.ID == t.ID && found.Version == "":
			found = t
		case found.ID == t.ID && t.Version == "":
		case found.ID != t.ID || found.Version != t.Version:
			return refuse("the address names two papers, %s and %s", found.ID+found.Version, t.ID+t.Version)
		}
		return nil
	}
	for i, s := range segs {
		if strings.Contains(s, ".") {
			if err := consider(s); err != nil {
				return Target{}, err
			}
		}
		archive, _, _ := strings.Cut(strings.ToLower(s), ".")
		if i+1 < len(segs) && archives[archive] {
			if err := consider(s + "/" + segs[i+1]); err != nil {
				return Target{}, err
			}
		}
	}
	if found.ID == "" {
		for _, k := range idKeys {
			for _, v := range q[k] {
				for _, id := range strings.Split(v, ",") {
					if err := consider(strings.TrimSpace(id)); err != nil {
						return Target{}, err
					}
				}
			}
		}
	}
	switch {
	case found.ID != "":
		return found, nil
	case near != nil:
		return Target{}, near
	}
	return Target{}, refuseFix("paste the arXiv id, or end the address in .git if it is a git repository",
		"no arXiv id stands in the address, and %s is not a known code host", host)
}

// idFromQuery reads the query of arXiv's API; of several ids the first counts.
func idFromQuery(q url.Values) (Target, error) {
	first, _, _ := strings.Cut(q.Get("id_list"), ",")
	if first == "" {
		return Target{}, refuse("the query has no id_list")
	}
	return arxivTarget(strings.TrimSpace(first))
}

// resplit undoes %2F, which arXiv accepts in old ids.
func resplit(segs []string) []string {
	return strings.FieldsFunc(strings.Join(segs, "/"), func(r rune) bool { return r == '/' })
}
