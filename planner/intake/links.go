package intake

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
)

// zone is the part of a paper that a link stands in.
type zone int

const (
	zoneComment zone = iota
	zoneAbstract
	zoneFront // title, authors, and their footnotes
	zoneIntro // the first section
	zoneBody
	zoneReferences
)

// place is where a text was read.
type place struct {
	src     source
	field   string // CSS selector or field name
	where   string // for a person: "section 3 ¶2"
	zone    zone
	context string // for a footnote: the sentence its mark stands in
}

// The scores order links by who states them. They mean nothing but their
// order; from scoreStated on somebody says that this is the paper's code.
const (
	scoreOwnComment  = 100
	scoreOwnAbstract = 98
	scoreOwnFront    = 95
	scoreOwnIntro    = 92
	scoreOwnBody     = 90
	scoreBareTop     = 85 // bare link in comment or abstract
	scoreCurated     = 80
	scoreBareFront   = 75
	scoreNamed       = 70
	scoreAggAuthor   = 66
	scoreClaimed     = 60
	scoreAggregator  = 50
	scoreMirror      = 45
	scoreStated      = scoreMirror
	scoreBareIntro   = 35
	scoreBareBody    = 30
	scoreOfOthers    = 25
	scoreReferences  = 20
)

// maxEvidence is how many places are kept for one link.
const maxEvidence = 6

// link is a repository that somebody links to.
type link struct {
	url, repo string // canonical URL and repository ("github.com/o/r")
	statedBy  string
	score     int
	reason    string
	note      string
	simulated bool
	dead      bool
	evidence  []spec.Evidence
}

// otherLink is a link that is no repository.
type otherLink struct {
	url      string
	evidence spec.Evidence
}

// linkSet collects links, one per repository.
type linkSet struct {
	list     []*link
	byRepo   map[string]*link
	others   []otherLink // stated as the code, but no repository
	projects []otherLink // the project's page
	hub      []hubLink
}

type hubLink struct {
	target   target.Target
	own      bool
	evidence spec.Evidence
}

var (
	// urlRE finds URLs in running text, with TeX escapes in them.
	urlRE = regexp.MustCompile(`(?i)(?:\bhttps?://|\bwww\.|\b(?:github|gitlab|huggingface|codeberg)\.(?:com|co|org)/|\bbitbucket\.org/)(?:[^\s<>"{}|\\^` + "`" + `]|\\[_%#&~-])+`)

	// ownRE holds the ways authors say "this is our code".
	ownRE = regexp.MustCompile(`(?i)\b(?:code(?:base)?s?|implementations?|repositor(?:y|ies)|software|scripts?|artifacts?|simulator|library|toolkit|package|framework|source|materials?|project)\b` +
		`.{0,160}?\b(?:available|releas(?:ed?|ing)|open[- ]?sourced?|accessible|hosted|archived|deposited|published|found|public(?:ly)?|provided|shared|maintained|downloaded|obtained|accessed)\b` +
		`|\b(?:releas(?:e|ed|ing)|open[- ]?sourc(?:e|ed|ing)|publish|provide|share|make)\b.{0,120}?\b(?:code(?:base)?|implementations?|repository|scripts?|software|simulator|library|framework|artifacts?)\b`)
	// labelRE matches what stands right before a link: "Code:", "available at".
	labelRE = regexp.MustCompile(`(?i)(?:\b(?:code(?:base)?|implementation|repository|repo|github|source|software|artifacts?|project(?: (?:page|website|url))?|webpage|website)s?(?: (?:link|url|is|are|at|on|here))*\s*[:=@\-–—(]*|\bavailable(?: (?:at|on|from|here|via|under|online|publicly|on github))*\s*[:(]*|\b(?:see|visit)\s*[:(]?)\s*$`)
	ourRE   = regexp.MustCompile(`(?i)\b(?:our|ours|we (?:will |also |have |fully |further |publicly |hereby )*(?:releas|open|publish|provide|share|make|made)|(?:this|the present) (?:paper|work|article|study|project)|to reproduce|reproduc(?:e|ibility|ing|tion))`)
	ourCode = regexp.MustCompile(`(?i)\bour (?:\w+ ){0,3}(?:code(?:base)?|implementation|repository|simulator|library|toolkit|framework|software|scripts?|artifacts?)\b`)
	// othersRE holds the ways authors speak of somebody else's code.
	othersRE = regexp.MustCompile(`(?i)\b(?:us(?:e|es|ed|ing)|adopt(?:s|ed|ing)?|follow(?:s|ed|ing)?|buil(?:d|ds|t|ding) (?:up)?on|built (?:with|using)|based on|borrow(?:s|ed)?|modif(?:y|ied)|adapt(?:s|ed)?|tak(?:e|en) from|fork(?:s|ed)?|baselines?|their|his|her|official|original|provided by|released by|compar(?:e|ed|ing)|evaluat(?:e|ed|ing) with|implemented (?:in|with|using|by)|thank)\b`)
	promise  = regexp.MustCompile(`(?i)\b(?:will|to) be (?:made )?(?:publicly |freely |openly )?(?:available|released|published|open)|\bupon (?:acceptance|publication)|\bsoon\b`)

	withdrawnRE = regexp.MustCompile(`(?i)\bwithdrawn\b`)
	projectRE   = regexp.MustCompile(`(?i)\bproject (?:page|web ?site|home ?page|url)|\bweb(?:site|page)\b`)
)

// trimURL cuts what belongs to the sentence and not to the URL.
func trimURL(s string) string {
	s = texURLEscapes.Replace(s)
	for {
		t := strings.TrimRight(s, ".,;:!?'\"’”*…")
		for _, pair := range []string{"()", "[]"} {
			if strings.HasSuffix(t, pair[1:]) && strings.Count(t, pair[:1]) < strings.Count(t, pair[1:]) {
				t = t[:len(t)-1]
			}
		}
		if t == s {
			return s
		}
		s = t
	}
}

// repository reads a URL as one of a repository. A page inside of one that
// names no reference (issues, releases) counts as the repository.
func repository(raw string) (target.Target, bool) {
	t, err := target.Parse(raw)
	if err == nil {
		return t, t.Kind == target.Git
	}
	if i := strings.Index(strings.ToLower(raw), "github.com/"); i >= 0 {
		if parts := strings.Split(raw[i:], "/"); len(parts) > 3 {
			if t, err := target.Parse("https://" + strings.Join(parts[:3], "/")); err == nil {
				return t, t.Kind == target.Git
			}
		}
	}
	return target.Target{}, false
}

// text finds the links of a text and weighs each by the words around it.
func (s *linkSet) text(text string, p place) {
	for _, at := range urlRE.FindAllStringIndex(text, 100) {
		raw := trimURL(text[at[0]:at[1]])
		before, sentence := around(text, at[0], at[0]+len(raw))
		if p.context != "" {
			sentence = p.context + " " + sentence
			if strings.TrimSpace(before) == "" {
				before = p.context
			}
		}
		ev := p.src.evidence(p.field, sentence)
		own, others := classify(before, sentence)
		if _, ok := repository(raw); ok {
			score, reason := weigh(p, own, others)
			if own && promise.MatchString(sentence) {
				reason += " (they promise it for later)"
			}
			s.add(raw, link{statedBy: "author", score: score, reason: reason, evidence: []spec.Evidence{ev}})
			continue
		}
		if p.zone == zoneReferences {
			continue
		}
		t, err := target.Parse(raw)
		switch {
		case err == nil && strings.HasPrefix(t.Kind, "hf_"):
			s.hub = append(s.hub, hubLink{t, own && !others, ev})
		case err == nil:
		case projectRE.MatchString(before) || strings.Contains(raw, ".github.io"):
			s.projects = appendOther(s.projects, otherLink{raw, ev})
		case own && !others && strings.Contains(raw, "://"):
			s.others = appendOther(s.others, otherLink{raw, ev})
		}
	}
}

func appendOther(list []otherLink, l otherLink) []otherLink {
	same := func(o otherLink) bool { return strings.TrimRight(o.url, "/") == strings.TrimRight(l.url, "/") }
	if slices.ContainsFunc(list, same) || len(list) >= 20 {
		return list
	}
	return append(list, l)
}

// around returns the beginning of the sentence up to the link and the whole
// sentence.
func around(text string, start, end int) (before, sentence string) {
	const reach = 300
	from := max(0, start-reach)
	if from > 0 {
		from += strings.IndexByte(text[from:start]+" ", ' ')
	}
	from = min(from, start)
	if at := sentenceEnd.FindAllStringIndex(text[from:start], -1); at != nil {
		from += at[len(at)-1][1] - 1
	}
	to := min(len(text), end+reach)
	if at := sentenceEnd.FindStringIndex(text[end:to]); at != nil {
		to = end + at[0] + 1
	} else if to < len(text) {
		to = end + max(0, strings.LastIndexByte(text[end:to], ' '))
	}
	return strings.TrimSpace(text[from:start]), strings.TrimSpace(text[from:to])
}

var sentenceEnd = regexp.MustCompile(`[.!?][)\]”"]?\s+[\p{Lu}\d“(]`)

// classify says whether a sentence states the authors' own code, and whether it
// speaks of somebody else's.
func classify(before, sentence string) (own, others bool) {
	plain := urlRE.ReplaceAllString(sentence, " URL ")
	our := ourRE.MatchString(plain)
	own = ourCode.MatchString(plain) || ownRE.MatchString(plain) || labelRE.MatchString(before)
	others = othersRE.MatchString(plain) && !our
	return own && !others, others
}

func weigh(p place, own, others bool) (int, string) {
	switch {
	case p.zone == zoneReferences:
		return scoreReferences, "listed in the references; nobody states it as this paper's code"
	case others && p.zone != zoneComment && p.zone != zoneAbstract:
		return scoreOfOthers, "named in " + p.where + " as code of others"
	case own:
		score := map[zone]int{zoneComment: scoreOwnComment, zoneAbstract: scoreOwnAbstract, zoneFront: scoreOwnFront, zoneIntro: scoreOwnIntro, zoneBody: scoreOwnBody}[p.zone]
		return score, "the authors state it as their code in " + p.where
	}
	switch p.zone {
	case zoneComment, zoneAbstract:
		return scoreBareTop, "the authors link to it in " + p.where
	case zoneFront:
		return scoreBareFront, "the authors link to it in " + p.where
	case zoneIntro:
		return scoreBareIntro, "mentioned in " + p.where + "; nobody states it as this paper's code"
	}
	return scoreBareBody, "mentioned in " + p.where + "; nobody states it as this paper's code"
}

// add merges a link into the one for the same repository. The better statement
// wins; the evidence of both is kept, and so are a note and the mark that the
// code simulates.
func (s *linkSet) add(raw string, l link) {
	t, ok := repository(raw)
	if !ok {
		return
	}
	l.url, l.repo = t.URL, t.ID
	key := strings.TrimSuffix(strings.ToLower(t.ID), ".git")
	old := s.byRepo[key]
	if old == nil {
		if s.byRepo == nil {
			s.byRepo = map[string]*link{}
		}
		if len(s.list) >= 200 {
			return
		}
		s.byRepo[key] = &l
		s.list = append(s.list, &l)
		return
	}
	evidence := old.evidence
	if l.score > old.score {
		old.url, old.repo, old.statedBy, old.score, old.reason = l.url, l.repo, l.statedBy, l.score, l.reason
		evidence = append(slices.Clone(l.evidence), evidence...)
	} else {
		evidence = append(evidence, l.evidence...)
	}
	old.evidence = evidence[:min(len(evidence), maxEvidence)]
	old.note = cmp.Or(old.note, l.note)
	old.simulated = old.simulated || l.simulated
}

// authorStated reports whether the authors state any repository.
func (s *linkSet) authorStated() bool { return s.has("author") }

// has reports whether somebody of a kind states a repository.
func (s *linkSet) has(statedBy string) bool {
	return slices.ContainsFunc(s.list, func(l *link) bool { return l.statedBy == statedBy && l.score >= scoreStated })
}

func (s *linkSet) projectPages() []otherLink { return s.projects }

var (
	titleNameRE = regexp.MustCompile(`^([\p{L}\d][\p{L}\d+.-]{3,39})\s*:`)
	notAlnumRE  = regexp.MustCompile(`[^\p{L}\d]+`)
)

// named lifts a mentioned repository that has the name of the paper's title:
// "FlashThing: …" and github.com/x/flash-thing.
func (s *linkSet) named(title string) {
	m := titleNameRE.FindStringSubmatch(title)
	if m == nil {
		return
	}
	name := notAlnumRE.ReplaceAllString(strings.ToLower(m[1]), "")
	for _, l := range s.list {
		repo := notAlnumRE.ReplaceAllString(strings.ToLower(l.repo[strings.LastIndexByte(l.repo, '/')+1:]), "")
		if l.score < scoreStated && l.score > scoreReferences && len(name) >= 4 && repo == name {
			l.score = scoreNamed
			l.reason = strings.TrimSuffix(l.reason, "; nobody states it as this paper's code") + "; it has the name that the title begins with"
		}
	}
}

// ranked returns the stated links and the mere mentions, best first. look is
// called for the best few and may mark a link as dead; those go last.
func (s *linkSet) ranked(look func(*link)) (links, mentions []spec.Candidate) {
	const looked = 4
	order := func(a, b *link) int {
		if a.dead != b.dead {
			if a.dead {
				return 1
			}
			return -1
		}
		return b.score - a.score
	}
	list := slices.Clone(s.list)
	slices.SortStableFunc(list, order)
	for i, l := range list {
		if i < looked && l.score >= scoreStated {
			look(l)
		}
	}
	stated := slices.DeleteFunc(slices.Clone(list), func(l *link) bool { return l.score < scoreStated })
	slices.SortStableFunc(stated, order)
	for _, l := range stated {
		links = append(links, l.candidate(len(links)+1))
	}
	for _, l := range list {
		if l.score < scoreStated {
			mentions = append(mentions, l.candidate(len(links)+len(mentions)+1))
		}
	}
	return links, mentions
}

func (l *link) candidate(rank int) spec.Candidate {
	return spec.Candidate{
		URL: l.url, StatedBy: l.statedBy, Rank: rank, Reason: l.reason,
		Note: l.note, Simulated: l.simulated, Evidence: l.evidence,
	}
}

// look asks the code host whether a repository is there. What cannot be asked
// (an unknown host, an offline mirror) stays as it is.
func (in *Intake) look(ctx context.Context, r *reading, l *link) {
	if ctx.Err() != nil {
		return
	}
	page := "https://" + l.repo
	res, err := in.client.Get(ctx, fetch.Request{URL: page, Accept: "text/html", MaxBytes: 8 << 20})
	if err == nil {
		if t, ok := repository(res.Canonical); ok && !strings.EqualFold(t.ID, l.repo) {
			ev := spec.Evidence{URL: page, Field: "Location", Hash: res.SHA256, Quote: shorten(res.Canonical, maxQuote)}
			l.evidence = append(slices.Clone(l.evidence), ev)
			l.reason += "; it has moved to " + t.ID
			r.warn("code_link_moved", page+" redirects to https://"+t.ID, ev)
			l.url, l.repo = strings.Replace(l.url, l.repo, t.ID, 1), t.ID
		}
		return
	}
	if status := statusOf(err); status == 404 || status == 410 || status == 451 || status == 401 || status == 403 {
		ev := spec.Evidence{URL: page, Field: "status", Quote: shorten(err.Error(), maxQuote)}
		l.dead = true
		l.evidence = append(slices.Clone(l.evidence), ev)
		l.reason += "; it cannot be read (status " + strconv.Itoa(status) + ")"
		r.warn("code_link_dead", page+" cannot be read: it was deleted, renamed or is private", ev)
	}
}

// followOthers looks where links lead that are stated as the code but are no
// repository: shorteners, archives. At most three are asked, each only where
// the client allows its host; the rest is reported.
func (in *Intake) followOthers(ctx context.Context, r *reading) {
	for i, o := range r.links.others {
		if i < 3 && ctx.Err() == nil {
			res, err := in.client.Get(ctx, fetch.Request{URL: o.url, Accept: "text/html", MaxBytes: 8 << 20})
			if err == nil {
				if _, ok := repository(res.Canonical); ok && res.Canonical != o.url {
					ev := spec.Evidence{URL: o.url, Field: "Location", Hash: res.SHA256, Quote: shorten(res.Canonical, maxQuote)}
					r.links.add(res.Canonical, link{
						statedBy: "author", score: scoreOwnBody, evidence: []spec.Evidence{o.evidence, ev},
						reason: "the authors state " + o.url + " as their code, which leads there",
					})
					continue
				}
			}
		}
		r.warn("code_link_not_followed", o.url+" is stated as the code but is not a repository that can be fetched", o.evidence)
	}
}
