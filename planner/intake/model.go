package intake

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
)

// Model is what the hub says about a model, without its weights.
type Model struct {
	spec.Model
	// Access is "open", or "gated" when the model's files may not be read
	// without accepting conditions, or "gated_granted" when they could be.
	Access string
	// Config is config.json, nil when there is none or it may not be read.
	Config json.RawMessage
	// Quant is hf_quant_config.json, nil when there is none.
	Quant json.RawMessage
	// Files are the files of the revision with their sizes where known.
	Files []File
	// Papers are the arXiv ids that the model's card cites.
	Papers []string
	// Card is the README, at most 1 MiB.
	Card     string
	URL      string // canonical
	Warnings []spec.Warning
}

// File is one file of a model.
type File struct {
	Path string
	Size int64 // in bytes, 0 when unknown
	// SHA256 is set for files in large-file storage.
	SHA256 string
}

// modelJSON is GET /api/models/{id}[/revision/{rev}]?blobs=true.
type modelJSON struct {
	ID          string   `json:"id"`
	SHA         string   `json:"sha"`
	PipelineTag string   `json:"pipeline_tag"`
	LibraryName string   `json:"library_name"`
	Tags        []string `json:"tags"`
	Gated       gate     `json:"gated"`
	Private     bool     `json:"private"`
	Disabled    bool     `json:"disabled"`
	Card        struct {
		License     stringOrList `json:"license"`
		LicenseName string       `json:"license_name"`
		BaseModel   stringOrList `json:"base_model"`
	} `json:"cardData"`
	Safetensors struct {
		Parameters map[string]int64 `json:"parameters"`
		Total      int64            `json:"total"`
	} `json:"safetensors"`
	Siblings []struct {
		Name string `json:"rfilename"`
		Size int64  `json:"size"`
		LFS  struct {
			SHA256 string `json:"sha256"`
			Size   int64  `json:"size"`
		} `json:"lfs"`
	} `json:"siblings"`
}

// gate is false, true, "auto" or "manual".
type gate string

func (g *gate) UnmarshalJSON(b []byte) error {
	switch s := strings.Trim(string(b), `"`); s {
	case "false", "null", "":
		*g = ""
	default:
		*g = gate(shorten(cleanText(s), 20))
	}
	return nil
}

// stringOrList is a string or a list of strings; anything else is empty.
type stringOrList []string

func (l *stringOrList) UnmarshalJSON(b []byte) error {
	var one string
	var many []string
	*l = nil
	if json.Unmarshal(b, &one) == nil {
		many = []string{one}
	} else if json.Unmarshal(b, &many) != nil {
		return nil
	}
	for _, s := range many[:min(len(many), 50)] {
		if s = shorten(cleanText(s), 200); s != "" {
			*l = append(*l, s)
		}
	}
	return nil
}

const (
	maxCard   = 1 << 20
	maxConfig = 4 << 20
	maxIndex  = 16 << 20
	maxFiles  = 20000
)

// Model reads a model of the hub. An empty revision means the main branch; the
// commit it stands for is in the result.
//
// A gated model whose page can be read is no error: its Access says so.
// Errors: [*NotFoundError], [*AccessError], [*ThrottledError], [*AnswerError]
// and those of the client.
func (in *Intake) Model(ctx context.Context, id, revision string) (*Model, error) {
	t, err := target.Parse("hf://" + id)
	if err != nil || t.Kind != target.HFModel || t.ID != id {
		return nil, fmt.Errorf("read model: %w", cmp.Or(err, error(&NotFoundError{
			What: "model " + target.Quote(id), Fix: "write org/name",
		})))
	}
	m := &Model{Access: "open"}
	j, src, err := in.askModel(ctx, id, revision)
	if err != nil {
		return nil, fmt.Errorf("read model %s: %w", id, err)
	}
	in.describe(m, j, src, id)
	if err := in.modelFiles(ctx, m, revision); err != nil {
		return nil, fmt.Errorf("read model %s: %w", id, err)
	}
	return m, nil
}

func (m *Model) warn(code, message string, ev ...spec.Evidence) {
	m.Warnings = append(m.Warnings, spec.Warning{Code: code, Message: message, Evidence: ev})
}

func (m *Model) fact(name, value string, kind spec.Kind, ev ...spec.Evidence) {
	if value != "" {
		m.Facts = append(m.Facts, spec.Fact{Name: name, Value: value, Kind: kind, Evidence: ev})
	}
}

// askModel reads the hub's description, with the sizes of files where it can
// be had so: a mirror that was filled by hand may hold the plain form only.
func (in *Intake) askModel(ctx context.Context, id, revision string) (*modelJSON, source, error) {
	parts := append([]string{"api", "models"}, strings.Split(id, "/")...)
	if revision != "" {
		parts = append(parts, "revision", revision)
	}
	var lastErr error
	for _, q := range []url.Values{{"blobs": {"true"}}, nil} {
		u, err := in.client.URL(fetch.HF, fetch.Path(parts...), q)
		if err != nil {
			return nil, source{}, err
		}
		var j modelJSON
		src, err := in.getJSON(ctx, u, &j)
		if err == nil {
			if j.ID == "" {
				return nil, source{}, &AnswerError{URL: u, Reason: "a description without an id"}
			}
			return &j, src, nil
		}
		lastErr = err
		if !isMissingFromMirror(err) {
			break
		}
	}
	return nil, source{}, hubError(id, revision, lastErr)
}

// hubError says in words what a refusal of the hub means. Its X-Error-Code
// tells more than the status: a gated file is 401 both without a token and with
// a wrong one.
func hubError(id, revision string, err error) error {
	var e *fetch.StatusError
	if !errors.As(err, &e) {
		return err
	}
	page := "https://huggingface.co/" + id
	code, detail := e.Header.Get("X-Error-Code"), shorten(cleanText(e.Header.Get("X-Error-Message")), 200)
	access := func(state, fix string) error {
		return &AccessError{ID: id, State: state, Status: e.Status, Detail: detail, Fix: fix}
	}
	switch {
	case code == "GatedRepo":
		return access("gated", "accept the conditions at "+page+" and set HF_TOKEN to a token of that account")
	case code == "RevisionNotFound":
		return &NotFoundError{What: "revision " + revision + " of model " + id, URL: page, Fix: "see " + page + "/refs for its branches and tags"}
	case code == "DisabledRepo", e.Status == 410, e.Status == 451:
		return access("disabled", "the hub has taken it down; look for another copy")
	case e.Status == 401:
		return access("not_found_or_private", "check the name at "+page+" (case matters), or set HF_TOKEN if it is private")
	case e.Status == 403:
		return access("forbidden", "see "+page+" with the account of HF_TOKEN")
	case e.Status == 404:
		return &NotFoundError{What: "model " + id + " on the hub", URL: page, Fix: "check the name at " + page + " (case matters)"}
	}
	return throttled(err)
}

// describe fills the model from the hub's description.
func (in *Intake) describe(m *Model, j *modelJSON, src source, asked string) {
	m.ID = asked
	if t, err := target.Parse("hf://" + j.ID); err == nil && t.Kind == target.HFModel {
		m.ID = t.ID
	}
	if m.ID != asked {
		m.warn("model_renamed", asked+" is now "+m.ID, src.evidence("/id", m.ID))
	}
	m.URL = "https://huggingface.co/" + m.ID
	if commit := strings.ToLower(j.SHA); commitRE.MatchString(commit) {
		m.Revision = commit
	} else {
		m.warn("no_commit", "the hub names no commit of "+m.ID, src.evidence("/sha", shorten(cleanText(j.SHA), 80)))
	}
	m.Task = shorten(cleanText(j.PipelineTag), 80)
	m.Base = j.Card.BaseModel
	m.Licence = strings.Join(j.Card.License, ", ")
	if m.Licence == "other" && j.Card.LicenseName != "" {
		m.Licence = "other: " + shorten(cleanText(j.Card.LicenseName), 100)
	}
	for _, tag := range j.Tags {
		if rest, ok := strings.CutPrefix(tag, "arxiv:"); ok {
			if id, _, err := target.ParseArXiv(rest); err == nil && !slices.Contains(m.Papers, id) && len(m.Papers) < 50 {
				m.Papers = append(m.Papers, id)
			}
		}
		if rest, ok := strings.CutPrefix(tag, "license:"); ok && m.Licence == "" {
			m.Licence = shorten(cleanText(rest), 100)
		}
	}
	if j.Gated != "" {
		m.Gated, m.Access = true, "gated"
		m.fact("gated", string(j.Gated), spec.Published, src.evidence("/gated", string(j.Gated)))
	}
	if j.Disabled {
		m.warn("model_disabled", "the hub has disabled "+m.ID, src.evidence("/disabled", "true"))
	}
	m.fact("library", shorten(cleanText(j.LibraryName), 80), spec.Published, src.evidence("/library_name", ""))
	if n := j.Safetensors.Total; n > 0 {
		m.fact("parameters", strconv.FormatInt(n, 10), spec.Published, src.evidence("/safetensors/total", ""))
	}
	for _, dtype := range slices.Sorted(maps.Keys(j.Safetensors.Parameters)) {
		if n := j.Safetensors.Parameters[dtype]; n > 0 && len(dtype) <= 20 {
			m.fact("parameters_"+cleanText(dtype), strconv.FormatInt(n, 10), spec.Published, src.evidence("/safetensors/parameters/"+cleanText(dtype), ""))
		}
	}
	var bytes int64
	for _, f := range j.Siblings {
		if len(m.Files) >= maxFiles {
			m.warn("files_truncated", fmt.Sprintf("%s has more than %d files; the others are not listed", m.ID, maxFiles))
			break
		}
		if !plainPath(f.Name) {
			m.warn("file_name", "a file of "+m.ID+" has a name that is not used: "+target.Quote(f.Name), src.evidence("/siblings", ""))
			continue
		}
		size := max(f.Size, f.LFS.Size, 0)
		bytes += size
		m.Files = append(m.Files, File{Path: f.Name, Size: size, SHA256: f.LFS.SHA256})
	}
	if bytes > 0 {
		m.fact("repository_bytes", strconv.FormatInt(bytes, 10), spec.Derived, src.evidence("/siblings", ""))
	}
	m.weights(src)
}

// weights notes the formats of the weights by the names of their files.
func (m *Model) weights(src source) {
	var safe, pickle, gguf int
	for _, f := range m.Files {
		switch ext := strings.ToLower(path.Ext(f.Path)); {
		case ext == ".safetensors":
			safe++
		case ext == ".gguf":
			gguf++
		case (ext == ".bin" || ext == ".pt" || ext == ".pth" || ext == ".ckpt") && !strings.HasPrefix(path.Base(f.Path), "training_args"):
			pickle++
		}
	}
	formats := ""
	for _, f := range []struct {
		name string
		n    int
	}{{"safetensors", safe}, {"gguf", gguf}, {"pickle", pickle}} {
		if f.n > 0 {
			formats = strings.TrimSpace(formats + " " + f.name)
		}
	}
	m.fact("weight_formats", formats, spec.Derived, src.evidence("/siblings", ""))
	switch {
	case formats == "pickle":
		m.warn("pickle_weights", m.ID+" has its weights as pickles only, which run code when they are loaded", src.evidence("/siblings", ""))
	case formats == "" && len(m.Files) > 0:
		m.warn("no_weights", m.ID+" has no file of weights that is known", src.evidence("/siblings", ""))
	}
}

// modelFiles reads the small files. Which revision names them depends on where
// they are read from: the commit, and in a mirror filled by hand the name that
// was asked for.
func (in *Intake) modelFiles(ctx context.Context, m *Model, asked string) error {
	revs := slices.Compact([]string{cmp.Or(m.Revision, asked, "main"), cmp.Or(asked, "main")})
	read := func(name string, limit int64) ([]byte, source, error) {
		var err error
		for _, rev := range revs {
			u, uerr := in.client.URL(fetch.HF, fetch.Path(append(strings.Split(m.ID, "/"), append([]string{"resolve", rev}, strings.Split(name, "/")...)...)...), nil)
			if uerr != nil {
				return nil, source{}, uerr
			}
			var res *fetch.Response
			if res, err = in.client.Get(ctx, fetch.Request{URL: u, MaxBytes: limit}); err == nil {
				return res.Body, source{url: u, hash: res.SHA256}, nil
			}
			if !isMissingFromMirror(err) {
				break
			}
		}
		return nil, source{}, err
	}
	if err := m.config(read); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Access == "gated" {
		return nil // the other files are refused too
	}
	m.Quant = m.optional("hf_quant_config.json", maxConfig, read)
	if card, _, err := read("README.md", maxCard); err == nil {
		m.Card = strings.ToValidUTF8(string(card), "\uFFFD")
	} else if !isQuiet(err) {
		m.warn("card_unavailable", "the card of "+m.ID+" could not be read: "+shorten(cleanText(err.Error()), 300))
	}
	m.checkIndex(read)
	return ctx.Err()
}

type reader func(name string, limit int64) ([]byte, source, error)

// config reads config.json and notes what planners ask first.
func (m *Model) config(read reader) error {
	body, src, err := read("config.json", maxConfig)
	var access *AccessError
	if err != nil {
		err = hubError(m.ID, m.Revision, err)
	}
	switch {
	case errors.As(err, &access):
		m.Access, m.Gated = "gated", true
		m.warn("gated", "the files of "+m.ID+" may not be read: "+access.Fix)
		return nil
	case isNotFound(err), isMissingFromMirror(err):
		m.warn("no_config", m.ID+" has no config.json")
		return nil
	case err != nil:
		return err
	}
	if m.Access == "gated" {
		m.Access = "gated_granted"
	}
	var c struct {
		Architectures []string       `json:"architectures"`
		ModelType     string         `json:"model_type"`
		TorchDtype    string         `json:"torch_dtype"`
		Dtype         string         `json:"dtype"`
		AutoMap       map[string]any `json:"auto_map"`
		Quant         map[string]any `json:"quantization_config"`
	}
	if !json.Valid(body) {
		m.warn("bad_config", "config.json of "+m.ID+" is not valid JSON", src.evidence("", string(body[:min(len(body), 100)])))
		return nil
	}
	if err := decodeJSON(src.url, body, &c); err != nil {
		m.warn("bad_config", "config.json of "+m.ID+" is not an object", src.evidence("", ""))
		return nil
	}
	m.Config = json.RawMessage(bytes.Clone(body))
	m.fact("architecture", shorten(cleanText(strings.Join(c.Architectures, " ")), 200), spec.Published, src.evidence("/architectures", ""))
	m.fact("model_type", shorten(cleanText(c.ModelType), 80), spec.Published, src.evidence("/model_type", ""))
	dtypeField := "/dtype"
	if c.Dtype == "" {
		dtypeField = "/torch_dtype"
	}
	m.fact("dtype", shorten(cleanText(cmp.Or(c.Dtype, c.TorchDtype)), 40), spec.Published, src.evidence(dtypeField, ""))
	if method, ok := c.Quant["quant_method"].(string); ok {
		m.fact("quant_method", shorten(cleanText(method), 80), spec.Published, src.evidence("/quantization_config/quant_method", ""))
	}
	if algo, ok := c.Quant["quant_algo"].(string); ok {
		m.fact("quant_algo", shorten(cleanText(algo), 80), spec.Published, src.evidence("/quantization_config/quant_algo", ""))
	}
	if len(c.AutoMap) > 0 {
		m.warn("remote_code", m.ID+" brings its own Python code (auto_map); it is not run unless that is allowed", src.evidence("/auto_map", ""))
	}
	return nil
}

func (m *Model) has(name string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Path == name })
}

// optional reads a JSON file if the revision lists it.
func (m *Model) optional(name string, limit int64, read reader) json.RawMessage {
	if !m.has(name) {
		return nil
	}
	body, src, err := read(name, limit)
	switch {
	case err != nil:
		m.warn("file_unavailable", name+" of "+m.ID+" could not be read: "+shorten(cleanText(err.Error()), 300))
	case !json.Valid(body):
		m.warn("bad_json", name+" of "+m.ID+" is not valid JSON", src.evidence("", ""))
	default:
		return json.RawMessage(bytes.Clone(body))
	}
	return nil
}

// checkIndex compares the index of sharded weights with the files.
func (m *Model) checkIndex(read reader) {
	const name = "model.safetensors.index.json"
	body := m.optional(name, maxIndex, read)
	if body == nil {
		return
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := decodeJSON(name, body, &index); err != nil {
		m.warn("weights_index_mismatch", name+" of "+m.ID+" is not an index")
		return
	}
	missing := map[string]bool{}
	for _, file := range index.WeightMap {
		if !m.has(file) {
			missing[file] = true
		}
	}
	if len(missing) > 0 {
		names := slices.Sorted(maps.Keys(missing))
		m.warn("weights_index_mismatch", fmt.Sprintf("%s of %s names %d files that the model does not have, first %s", name, m.ID, len(names), target.Quote(names[0])))
	}
}

// plainPath reports whether a file's name can be used as a path below a folder.
func plainPath(p string) bool {
	return p != "" && len(p) < 500 && path.Clean(p) == p && !path.IsAbs(p) && p != ".." && !strings.HasPrefix(p, "../") &&
		!strings.ContainsAny(p, "\\\x00") && cleanText(p) == p
}
