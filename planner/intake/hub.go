package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
)

// maxJSON caps an answer of the hub or an aggregator, in bytes.
const maxJSON = 16 << 20

// hubPaperJSON is GET /api/papers/{id}.
type hubPaperJSON struct {
	ID          string `json:"id"`
	GithubRepo  string `json:"githubRepo"`
	ProjectPage string `json:"projectPage"`
}

// hubReposJSON is GET /api/arxiv/{id}/repos.
type hubReposJSON struct {
	Models   []hubRepoJSON `json:"models"`
	Datasets []hubRepoJSON `json:"datasets"`
	Spaces   []hubRepoJSON `json:"spaces"`
}

type hubRepoJSON struct {
	ID string `json:"id"`
}

// getJSON reads a JSON answer into out. A field of an unexpected type is left
// empty; it does not spoil the rest.
func (in *Intake) getJSON(ctx context.Context, u string, out any) (source, error) {
	res, err := in.client.Get(ctx, fetch.Request{URL: u, Accept: "application/json", MaxBytes: maxJSON, Check: func(res *fetch.Response) error {
		if !json.Valid(res.Body) {
			return notJSON(res.URL, res.Body)
		}
		return nil
	}})
	if err != nil {
		return source{}, err
	}
	if err := decodeJSON(u, res.Body, out); err != nil {
		return source{}, err
	}
	return source{url: u, hash: res.SHA256}, nil
}

func notJSON(u string, body []byte) error {
	return &AnswerError{URL: u, Reason: "something that is no JSON", Excerpt: shorten(cleanText(string(body[:min(len(body), 512)])), 120), Transient: true}
}

func decodeJSON(u string, body []byte, out any) error {
	err := json.Unmarshal(body, out)
	var mistyped *json.UnmarshalTypeError
	switch {
	case err == nil:
	case errors.As(err, &mistyped) && mistyped.Field != "":
	case errors.As(err, &mistyped):
		return &AnswerError{URL: u, Reason: "a JSON " + mistyped.Value + " where an object is promised"}
	default:
		return notJSON(u, body)
	}
	return nil
}

// hubPaper reads the hub's page of the paper. Old ids are not on the hub.
func (in *Intake) hubPaper(ctx context.Context, r *reading) {
	id := r.paper.ID
	if strings.Contains(id, "/") || ctx.Err() != nil {
		return
	}
	u, err := in.client.URL(fetch.HF, fetch.Path("api", "papers", id), nil)
	var paper hubPaperJSON
	var src source
	if err == nil {
		src, err = in.getJSON(ctx, u, &paper)
	}
	switch {
	case err == nil:
		if paper.GithubRepo != "" {
			r.links.add(paper.GithubRepo, link{
				statedBy: "hub_curated", score: scoreCurated, reason: "the hub's page of the paper names it",
				evidence: []spec.Evidence{src.evidence("/githubRepo", cleanText(paper.GithubRepo))},
			})
		}
		if page := cleanText(paper.ProjectPage); hasPrefixFold(page, "http") {
			if _, ok := repository(page); ok {
				r.links.add(page, link{
					statedBy: "hub_curated", score: scoreCurated - 1, reason: "the hub's page of the paper names it as the project's page",
					evidence: []spec.Evidence{src.evidence("/projectPage", page)},
				})
			} else {
				r.links.projects = appendOther(r.links.projects, otherLink{page, src.evidence("/projectPage", page)})
			}
		}
	case isQuiet(err):
		return // the hub has no page of it, and so no list either
	default:
		r.warn("hub_unavailable", "the hub's page of the paper could not be read: "+shorten(cleanText(throttled(err).Error()), 400))
		return
	}
	in.hubRepos(ctx, r)
}

// isQuiet says that a secondary source has nothing, which is no news.
func isQuiet(err error) bool {
	status := statusOf(err)
	return status == 404 || status == 410 || isMissingFromMirror(err)
}

// hubRepos lists what on the hub cites the paper. Everybody can cite a paper:
// these are facts, not code links.
func (in *Intake) hubRepos(ctx context.Context, r *reading) {
	const most = 20
	u, err := in.client.URL(fetch.HF, fetch.Path("api", "arxiv", r.paper.ID, "repos"), nil)
	var repos hubReposJSON
	var src source
	if err == nil {
		src, err = in.getJSON(ctx, u, &repos)
	}
	if err != nil {
		if !isQuiet(err) {
			r.warn("hub_unavailable", "the hub's list of repositories that cite the paper could not be read: "+shorten(cleanText(throttled(err).Error()), 400))
		}
		return
	}
	for _, kind := range []struct {
		name string
		list []hubRepoJSON
	}{{"hub_models", repos.Models}, {"hub_datasets", repos.Datasets}, {"hub_spaces", repos.Spaces}} {
		name, list := kind.name, kind.list
		var ids []string
		for _, m := range list {
			if id := cleanText(m.ID); id != "" && len(ids) < most {
				ids = append(ids, id)
			}
		}
		value := strings.Join(ids, " ")
		if more := len(list) - len(ids); more > 0 && len(ids) == most {
			value += fmt.Sprintf(" and %d more", more)
		}
		r.fact(name, value, src.evidence("/"+strings.TrimPrefix(name, "hub_"), ""))
	}
	if !r.links.authorStated() && !r.links.has("hub_curated") {
		in.cards(ctx, r, repos.Models)
	}
}

var markdown = strings.NewReplacer("](", " ", "*", "", "[", " ", "]", " ", "`", " ", "|", " ", "#", " ")

// cards reads the cards of the first models that cite the paper. A link that a
// card states as the code is a claim of whoever wrote the card.
func (in *Intake) cards(ctx context.Context, r *reading, models []hubRepoJSON) {
	const most = 2
	for _, m := range models[:min(len(models), most)] {
		t, err := target.Parse("hf://" + m.ID)
		if err != nil || t.Kind != target.HFModel || t.ID != m.ID {
			continue
		}
		u, err := in.client.URL(fetch.HF, fetch.Path(append(strings.Split(m.ID, "/"), "resolve", "main", "README.md")...), nil)
		if err != nil {
			continue
		}
		res, err := in.client.Get(ctx, fetch.Request{URL: u, MaxBytes: maxCard})
		if err != nil {
			continue // a claim that cannot be read is not missed
		}
		var found linkSet
		for line := range strings.Lines(string(res.Body)) {
			found.text(cleanText(markdown.Replace(line)), place{src: source{url: u, hash: res.SHA256}, field: "README.md", where: "the card of " + m.ID, zone: zoneBody})
		}
		for _, l := range found.list {
			if l.score == scoreOwnBody {
				r.links.add(l.url, link{
					statedBy: "hub_claimed", score: scoreClaimed, evidence: l.evidence,
					reason: "the card of the hub's model " + m.ID + ", which cites the paper, states it as the code",
				})
			}
		}
	}
}

// alphaXivJSON is GET api.alphaxiv.org/papers/v3/{id}, as far as it is used.
type alphaXivJSON struct {
	GroupID      string `json:"groupId"`
	PaperGroupID string `json:"paperGroupId"`
}

// implementationJSON is one element of /papers/v3/{group}/implementations.
type implementationJSON struct {
	Type   string `json:"type"`
	URL    string `json:"url"`
	Source string `json:"source"` // "author" or who else added it
}

// alphaXiv asks the aggregator for implementations. It is asked only where the
// authors state no code, and any failure is quiet but for a note.
func (in *Intake) alphaXiv(ctx context.Context, r *reading) {
	if ctx.Err() != nil {
		return
	}
	list, src, err := in.implementations(ctx, r.paper.ID)
	if err != nil {
		if !isQuiet(err) {
			r.warn("aggregator_unavailable", "alphaXiv could not be asked for code: "+shorten(cleanText(throttled(err).Error()), 400))
		}
		return
	}
	for i, m := range list {
		score, reason := scoreAggregator, "alphaXiv lists it as an implementation"
		if m.Source == "author" {
			score, reason = scoreAggAuthor, "alphaXiv lists it as added by an author"
		}
		r.links.add(m.URL, link{
			statedBy: "aggregator", score: score, reason: reason,
			evidence: []spec.Evidence{src.evidence(fmt.Sprintf("/%d/url", i), cleanText(m.URL))},
		})
	}
}

func (in *Intake) implementations(ctx context.Context, id string) ([]implementationJSON, source, error) {
	u, err := in.client.URL(fetch.AlphaXiv, fetch.Path("papers", "v3", id), nil)
	if err != nil {
		return nil, source{}, err
	}
	var paper alphaXivJSON
	if _, err := in.getJSON(ctx, u, &paper); err != nil {
		return nil, source{}, err
	}
	group := paper.GroupID
	if group == "" {
		group = paper.PaperGroupID
	}
	if group == "" {
		return nil, source{}, nil
	}
	if u, err = in.client.URL(fetch.AlphaXiv, fetch.Path("papers", "v3", group, "implementations"), nil); err != nil {
		return nil, source{}, err
	}
	var raw json.RawMessage
	src, err := in.getJSON(ctx, u, &raw)
	if err != nil {
		return nil, source{}, err
	}
	var list []implementationJSON
	if err := decodeJSON(u, raw, &list); err != nil {
		var wrapped struct {
			Implementations []implementationJSON `json:"implementations"`
		}
		if err := decodeJSON(u, raw, &wrapped); err != nil {
			return nil, source{}, err
		}
		list = wrapped.Implementations
	}
	return list[:min(len(list), 50)], src, nil
}
