package git

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
)

const maxNamesInError = 12

// malformedRef returns why a ref cannot be one, or "" (git-check-ref-format,
// without its revision syntax).
func malformedRef(ref string) string {
	switch {
	case strings.HasPrefix(ref, "-") || strings.HasPrefix(ref, "/") || strings.HasSuffix(ref, "/"),
		strings.HasSuffix(ref, ".lock"), strings.HasSuffix(ref, "."), strings.Contains(ref, ".."),
		strings.Contains(ref, "//"), strings.Contains(ref, "@{"), len(ref) > maxName:
		return "it is not a ref"
	}
	for _, r := range ref {
		if r <= ' ' || r == 0x7f || strings.ContainsRune("~^:?*[\\", r) {
			return "it is not a ref; expressions such as HEAD~1 are not evaluated"
		}
	}
	return ""
}

// isShortID reports 4 to 39 hex digits.
func isShortID(s string) bool {
	return len(s) >= 4 && len(s) < 40 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// refNames lists the full names a short one may stand for, in the order of
// git clone --branch.
func refNames(ref string) []string {
	if strings.HasPrefix(ref, "refs/") {
		return []string{ref}
	}
	return []string{"refs/heads/" + ref, "refs/tags/" + ref, "refs/" + ref}
}

// shortName is a ref as a person writes it.
func shortName(full string) string {
	for _, p := range []string{"refs/heads/", "refs/tags/"} {
		if s, ok := strings.CutPrefix(full, p); ok {
			return s
		}
	}
	return full
}

// lookup resolves a ref among the advertised ones. ok is false for a short
// commit id that none of them starts with.
func lookup(adv *packp.AdvRefs, repo, ref string) (r resolved, ok bool, err error) {
	if ref == "" || ref == "HEAD" {
		if adv.Head == nil {
			return r, false, &RefError{Repo: repo, Ref: "HEAD", Why: "the server names no default branch", Have: someRefs(adv)}
		}
		id := adv.Head.String()
		full := defaultBranch(adv)
		return resolved{want: id, commit: id, ref: shortName(full), full: full, head: true}, true, nil
	}
	if isCommitID(ref) {
		id := strings.ToLower(ref)
		return resolved{want: id, commit: id, ref: ref}, true, nil
	}
	if why := malformedRef(ref); why != "" {
		return r, false, &RefError{Repo: repo, Ref: ref, Why: why}
	}
	for _, full := range refNames(ref) {
		h, found := adv.References[full]
		if !found {
			continue
		}
		r = resolved{want: h.String(), commit: h.String(), ref: ref, full: full}
		if peeled, annotated := adv.Peeled[full]; annotated {
			r.commit = peeled.String()
		}
		return r, true, nil
	}
	if !isShortID(ref) {
		return r, false, &RefError{Repo: repo, Ref: ref, Why: "there is no such branch or tag", Have: someRefs(adv)}
	}
	ids := map[string]string{} // commit to what to ask for
	for full, h := range adv.References {
		id := h.String()
		if peeled, annotated := adv.Peeled[full]; annotated {
			id = peeled.String()
		}
		if strings.HasPrefix(id, strings.ToLower(ref)) {
			ids[id] = h.String()
		}
	}
	if len(ids) > 1 {
		return r, false, &RefError{Repo: repo, Ref: ref, Why: "several commits start with it", Have: slices.Sorted(maps.Keys(ids))}
	}
	for id, want := range ids {
		return resolved{want: want, commit: id, ref: ref}, true, nil
	}
	return r, false, nil
}

// defaultBranch is the ref HEAD stands for, or "HEAD".
func defaultBranch(adv *packp.AdvRefs) string {
	for _, s := range adv.Capabilities.Get(capability.SymRef) {
		if target, ok := strings.CutPrefix(s, "HEAD:"); ok {
			return target
		}
	}
	return "HEAD"
}

// someRefs lists branches, then tags, for an error message.
func someRefs(adv *packp.AdvRefs) []string {
	var names []string
	for _, kind := range []string{"refs/heads/", "refs/tags/"} {
		for _, full := range slices.Sorted(maps.Keys(adv.References)) {
			if name, ok := strings.CutPrefix(full, kind); ok && len(names) < maxNamesInError {
				names = append(names, name)
			}
		}
	}
	return names
}
