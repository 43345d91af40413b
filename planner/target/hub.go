package target

import (
	"net/url"
	"regexp"
	"strings"
)

// The grammar of names, revisions and hf:// URIs follows the validators of
// huggingface/huggingface_hub (utils/_validators.py, hf_file_system.py).
var (
	hubNameRE = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,96}$`)
	refsRE    = regexp.MustCompile(`^refs/(?:pr|convert)/[A-Za-z0-9_.-]+$`)
	shaRE     = regexp.MustCompile(`^[0-9a-f]{40}$`)

	// hubPages are first path segments that never name an account.
	hubPages = set("api blog chat collections docs enterprise inference join jobs landing learn login logout models new " +
		"notifications organizations papers posts pricing search settings storage support tasks terms-of-service privacy")

	// fileEndings and webEndings make a bare word look like something else
	// than a model. The scheme hf:// says that it is one.
	fileEndings = set("pdf md txt rst json jsonl yaml yml toml html htm xml py ipynb tex bib zip gz tar tgz csv tsv parquet png jpg sh")
	webEndings  = set("org com net io ai dev edu gov co uk de fr cn ch eu info me app xyz")
)

var hubKinds = map[string]string{"models": HFModel, "datasets": HFDataset, "spaces": HFSpace}

// parseBare reads what has neither scheme nor host: an arXiv id, a DOI or the
// name of something on the hub.
func parseBare(s string) (Target, error) {
	if m := stampRE.FindStringSubmatch(s); m != nil {
		s = m[1]
	}
	if strings.ContainsAny(s, " \t") {
		return Target{}, refuse("it contains a space")
	}
	if t, err := arxivTarget(s); err == nil || nearArXiv(s) {
		return t, err
	}
	if doiRE.MatchString(s) {
		return parseDOI(s)
	}
	name, rev, hasRev := strings.Cut(s, "@")
	parts := strings.Split(strings.TrimSuffix(name, "/"), "/")
	kind := HFModel
	if k := hubKinds[parts[0]]; k != "" && len(parts) > 1 {
		kind, parts = k, parts[1:]
	}
	if len(parts) > 2 {
		return Target{}, refuseFix("write https://huggingface.co/… or hf://… for a file on the hub, ./… for a folder", "it has more than one slash and no host")
	}
	if rev, _ = url.PathUnescape(rev); hasRev && rev == "" {
		return Target{}, refuse("no revision follows the @")
	}
	for _, p := range parts {
		if err := notSomethingElse(p, strings.Join(parts, "/")); err != nil {
			return Target{}, err
		}
	}
	return hubTarget(kind, parts, rev, hasRev, nil)
}

func notSomethingElse(part, whole string) error {
	force := "for a hub model of this name write hf://" + whole
	dot := strings.LastIndexByte(part, '.')
	ending := strings.ToLower(part[dot+1:])
	switch {
	case nearArXiv(part):
		return refuseFix("write the arXiv id alone; "+force, "%s looks like an arXiv id", Quote(part))
	case dot >= 0 && fileEndings[ending]:
		return refuseFix("a local folder starts with ./ or /; "+force, "%s looks like a file", Quote(part))
	case dot >= 0 && webEndings[ending]:
		return refuseFix("write https:// before a web address; "+force, "%s looks like a host", Quote(part))
	}
	return nil
}

// parseHubURI reads what follows hf:// : [models/|datasets/|spaces/]org/name[@rev][/path].
func parseHubURI(s string) (Target, error) {
	s, _, _ = strings.Cut(s, "#")
	s, _, _ = strings.Cut(s, "?")
	before, after, hasRev := strings.Cut(s, "@")
	segs, err := segments(before)
	if err != nil {
		return Target{}, err
	}
	kind := HFModel
	if len(segs) > 0 && hubKinds[segs[0]] != "" {
		kind, segs = hubKinds[segs[0]], segs[1:]
	}
	if !hasRev {
		n := min(2, len(segs))
		return hubTarget(kind, segs[:n], "", false, segs[n:])
	}
	rest, err := segments(after)
	if err != nil {
		return Target{}, err
	}
	rev, path := takeRevision(rest)
	return hubTarget(kind, segs, rev, true, path)
}

// parseHubPath reads the path of a page of the hub.
func parseHubPath(segs []string) (Target, error) {
	if len(segs) > 2 && segs[0] == "api" && (hubKinds[segs[1]] != "" || segs[1] == "papers" || segs[1] == "arxiv") {
		segs = segs[1:]
		if segs[0] == "arxiv" {
			segs = []string{"papers", segs[1]}
		}
	} else if len(segs) > 0 && hubPages[segs[0]] && segs[0] != "papers" {
		return Target{}, refuse("the page /%s of the hub is not about one model", segs[0])
	}
	if len(segs) >= 2 && segs[0] == "papers" {
		if rest := resplit(segs[1:]); len(rest) <= 2 {
			return arxivTarget(strings.Join(rest, "/"))
		}
	}
	kind := HFModel
	if len(segs) > 0 && hubKinds[segs[0]] != "" {
		kind, segs = hubKinds[segs[0]], segs[1:]
	}
	if len(segs) == 0 {
		return Target{}, refuse("the address names nothing on the hub")
	}
	// The few names without organisation ("gpt2") have their action second.
	n := min(2, len(segs))
	if n == 2 && hubActions[segs[1]] {
		n = 1
	}
	if len(segs) == n {
		return hubTarget(kind, segs, "", false, nil)
	}
	action, rest := segs[n], segs[n+1:]
	switch {
	case action == "commit" && len(rest) == 1 && shaRE.MatchString(rest[0]):
	case action == "commit" || !hubActions[action]:
		return Target{}, refuse("the page /%s of the hub names no revision", action)
	case len(rest) == 0:
		return Target{}, refuse("no revision follows /%s", action)
	}
	rev, path := takeRevision(rest)
	return hubTarget(kind, segs[:n], rev, true, path)
}

var hubActions = set("tree blob resolve raw blame revision commit")

// takeRevision splits a revision off; refs/pr/3 spans three segments unless
// its slashes are encoded.
func takeRevision(segs []string) (rev string, path []string) {
	if len(segs) == 0 {
		return "", nil
	}
	if len(segs) >= 3 && segs[0] == "refs" && (segs[1] == "pr" || segs[1] == "convert") {
		return strings.Join(segs[:3], "/"), segs[3:]
	}
	return segs[0], segs[1:]
}

func hubTarget(kind string, name []string, rev string, hasRev bool, path []string) (Target, error) {
	id := strings.Join(name, "/")
	if err := checkHubName(name, id); err != nil {
		return Target{}, err
	}
	if hasRev {
		if err := checkRef(rev); err != nil {
			return Target{}, err
		}
		if strings.Contains(rev, "/") && !refsRE.MatchString(rev) {
			return Target{}, refuse("%s is not a revision of the hub: a branch, a tag, a commit or refs/pr/N", Quote(rev))
		}
	} else if len(path) > 0 {
		rev = "main" // every repository of the hub has this default branch
	}
	t := Target{Kind: kind, ID: id, Revision: rev, Path: strings.Join(path, "/")}
	t.URL = "https://huggingface.co/" + map[string]string{HFDataset: "datasets/", HFSpace: "spaces/"}[kind] + id
	if rev != "" {
		t.URL += "/tree/" + url.PathEscape(rev) + escapePath(t.Path)
	}
	return t, nil
}

func checkHubName(name []string, id string) error {
	if len(name) == 0 || len(name) > 2 || id == "" {
		return refuse("it names nothing on the hub")
	}
	for _, p := range name {
		if !hubNameRE.MatchString(p) {
			return refuse("%s is no name on the hub: those have letters, digits, -, _ and .", Quote(p))
		}
		if strings.ContainsAny(p[:1]+p[len(p)-1:], "-.") {
			return refuse("%s is no name on the hub: none starts or ends with - or .", Quote(p))
		}
	}
	switch {
	case hubPages[name[0]] || hubKinds[name[0]] != "" || hubActions[name[len(name)-1]]:
		return refuse("%s is no name on the hub: it is the address of a page", Quote(id))
	case len(id) > 96:
		return refuse("the name has %d characters; names on the hub have at most 96", len(id))
	case strings.Contains(id, "--"), strings.Contains(id, ".."):
		return refuse("%s is no name on the hub: none has -- or ..", Quote(id))
	case strings.HasSuffix(id, ".git"):
		return refuseFix("write https://host/… for a git repository", "%s is no name on the hub: none ends with .git", Quote(id))
	}
	return nil
}

func escapePath(p string) string {
	if p == "" {
		return ""
	}
	segs := strings.Split(p, "/")
	for i, s := range segs {
		segs[i] = url.PathEscape(s)
	}
	return "/" + strings.Join(segs, "/")
}
