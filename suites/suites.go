// Package suites says what an accuracy suite is: items, prompts, and graders
// that turn a stored answer into an outcome under a named, versioned rule.
//
// Graders are pure. Stored text can be graded again under any rule without a
// model, which matters because on the same text two published rules for the
// same benchmark differ by up to 24 points.
package suites

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Outcome is what became of one answer. Only Correct and Wrong are statements
// about the model's knowledge; the others are counted apart.
type Outcome string

// The outcomes, as the samples table spells them.
const (
	Correct   Outcome = "correct"
	Wrong     Outcome = "wrong"
	NoAnswer  Outcome = "no_answer" // text, but the rule found no answer in it
	Truncated Outcome = "truncated" // cut at the token limit before an answer was stated
	Empty     Outcome = "empty"     // no text at all
	Refused   Outcome = "refused"   // the server said that the model refused
	Error     Outcome = "error"     // no answer was received
)

// Outcomes returns every outcome in the order in which tables show them.
func Outcomes() []Outcome {
	return []Outcome{Correct, Wrong, NoAnswer, Truncated, Empty, Refused, Error}
}

// Item is one question of a suite.
type Item struct {
	ID        string   `json:"item_id"`
	Question  string   `json:"question,omitempty"`
	Options   []string `json:"options,omitempty"`  // as shown, in order; empty for free answers
	NOptions  int      `json:"n_options,omitzero"` // where Options is not at hand; see [Item.OptionCount]
	Reference string   `json:"reference"`          // right answer: a letter, an integer, …
	Category  string   `json:"category,omitempty"` // stratum, such as a subject
	Cluster   string   `json:"cluster,omitempty"`  // passage or document that several items share
	Data      string   `json:"data,omitempty"`     // what else the suite's prompts and graders need, as JSON
}

// OptionCount returns how many options the question offers, 0 for a free
// answer or where it is not known.
func (it Item) OptionCount() int { return max(len(it.Options), it.NOptions) }

// SHA returns the SHA-256 of the item's canonical JSON in hex. Two runs are
// comparable only over items whose hashes agree: published data sets change
// gold answers between revisions.
func (it Item) SHA() string {
	b, err := json.Marshal(it)
	if err != nil { // strings and ints always marshal
		panic(fmt.Sprintf("marshal item: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Rule identifies how answers are graded. A change of behaviour is a change of
// Version: scores under two versions are not comparable.
type Rule struct {
	Suite   string   `json:"suite"`
	Name    string   `json:"rule"`
	Version string   `json:"rule_version"`
	Doc     string   `json:"doc"`
	Source  string   `json:"source"` // where the protocol is published
	Stages  []string `json:"stages"` // names of stages 1, 2, …
}

// StageName names a stage of [Grade]; stage 0 is "none".
func (r Rule) StageName(stage int) string {
	if stage < 1 || stage > len(r.Stages) {
		return "none"
	}
	return r.Stages[stage-1]
}

// String returns name@version.
func (r Rule) String() string { return r.Name + "@" + r.Version }

// Grade is the result of grading one answer.
type Grade struct {
	Outcome   Outcome `json:"outcome"`
	Score     float64 `json:"score"`     // 0 to 1; the expected value where a rule would draw at random
	Stage     int     `json:"stage"`     // stage of the rule that found the answer, from 1; 0 if none did
	Extracted string  `json:"extracted"` // the answer found, "" if none
	Weak      bool    `json:"weak"`      // found by a fallback that takes whatever stands last, not by a statement
	Rule      string  `json:"rule"`      // name@version
}

// Grader grades text. Grade is pure and takes time linear in the text, whatever
// the text is: runaway answers of 160,000 characters are ordinary.
type Grader interface {
	Rule() Rule
	Grade(item Item, text string) Grade
}

// Checker is a [Grader] that can tell an item it cannot grade, such as one
// without a valid reference.
type Checker interface {
	Check(item Item) error
}

// Parted is a [Grader] whose grades are made of parts that are also counted over
// all items together, such as instructions of which a prompt has one to three.
type Parted interface {
	Parts(item Item, g Grade) (right, all int)
}

// Message is one turn of a prompt.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Prompt is what is sent for one item. Exactly one of Messages and Text is set:
// Text is for the completions endpoint.
type Prompt struct {
	Messages []Message `json:"messages,omitempty"`
	Text     string    `json:"text,omitempty"`
	Stop     []string  `json:"stop,omitempty"`
	// Prefix begins the assistant's turn, for suites that fix how an answer
	// starts; only together with Messages.
	Prefix string `json:"prefix,omitempty"`
	// Tools are OpenAI tool definitions; an answer to such a prompt is stored as a
	// [ToolAnswer].
	Tools json.RawMessage `json:"tools,omitempty"`
	// MaxTokens bounds this answer where the protocol does; it replaces the
	// sampling's bound.
	MaxTokens int `json:"max_tokens,omitempty"`
}

// SHA returns the SHA-256 of the prompt's canonical JSON in hex.
func (p Prompt) SHA() string {
	b, err := json.Marshal(p)
	if err != nil { // only Tools can fail to marshal, and then the suite is broken
		panic(fmt.Sprintf("marshal prompt: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Suite is a benchmark. Prompt is pure: the same item and repeat give the same
// bytes, so that every arm of a comparison sees the same input.
type Suite interface {
	Items(ctx context.Context) ([]Item, error)
	Prompt(item Item, repeat int) (Prompt, error)
	Grader() Grader
}

// Reordered is implemented by suites that show a question's options in another
// order in each repeat. Asked is pure, and gives the item as that repeat shows it,
// with the letter of the right option: what its answer is graded against.
type Reordered interface {
	Asked(item Item, repeat int) Item
}

// AskedAs returns an item as a repeat of a suite shows it.
func AskedAs(s Suite, item Item, repeat int) Item {
	if r, ok := s.(Reordered); ok {
		return r.Asked(item, repeat)
	}
	return item
}

// Vote returns what an extracted answer to an item stands for, which is the same
// whatever order the options were shown in: an option's text, or the answer itself.
func (it Item) Vote(extracted string) string {
	if len(extracted) == 1 {
		if i := int(extracted[0]) - 'A'; i >= 0 && i < len(it.Options) {
			return it.Options[i]
		}
	}
	return extracted
}

// Judged is implemented by suites whose answers another model judges. The
// judge's reply is stored beside the answer, so that grading stays pure.
type Judged interface {
	// JudgePrompt returns what the judge is asked about an answer, and false where
	// the answer needs no judge, such as an empty one.
	JudgePrompt(item Item, text string) (Prompt, bool)
	// GradeJudged grades an answer by the judge's reply, which is "" where
	// JudgePrompt wanted none.
	GradeJudged(item Item, text, reply string) Grade
}

// Key identifies an answer within a run.
type Key struct {
	Suite  string `json:"suite"`
	Arm    string `json:"arm"`
	ItemID string `json:"item_id"`
	Repeat int    `json:"repeat"`
}

// Record is one accepted answer, before and beside its grade.
type Record struct {
	Key
	ItemSHA         string    `json:"item_sha,omitempty"`
	PromptSHA       string    `json:"prompt_sha,omitempty"`
	Text            string    `json:"output"`
	Reasoning       string    `json:"reasoning,omitempty"`
	Judgement       string    `json:"judgement,omitempty"` // the judge's reply
	FinishReason    string    `json:"finish_reason,omitempty"`
	Refusal         bool      `json:"refusal,omitempty"`
	Error           string    `json:"error,omitempty"`
	PromptTokens    int64     `json:"prompt_tokens,omitempty"`
	OutputTokens    int64     `json:"output_tokens,omitempty"`
	ReasoningTokens int64     `json:"reasoning_tokens,omitempty"`
	CachedTokens    int64     `json:"cached_tokens,omitempty"`
	JudgeTokens     int64     `json:"judge_tokens,omitempty"` // input and output of the judge
	UsageWrong      string    `json:"usage_wrong,omitempty"`  // what was wrong with the server's own counts
	TTFT            float64   `json:"ttft_s,omitempty"`
	Latency         float64   `json:"latency_s,omitempty"`
	Retries         int       `json:"retries,omitempty"` // requests beyond the first
	Seed            int64     `json:"seed,omitempty"`
	ServerID        string    `json:"server_id,omitempty"`
	Check           int       `json:"check,omitempty"` // looks at the server's identity before this answer was asked for
	Asked           time.Time `json:"asked_at,omitzero"`
}

// Journal keeps answers from the moment they are accepted.
//
// Append returns once the record survives a crash of the process; a second
// record of the same key is an error and leaves the first in place. Replay
// calls f once for every record that Append accepted, in that order, and stops
// at f's first error, which it returns. A record that a crash cut short is not
// replayed.
type Journal interface {
	Append(Record) error
	Replay(f func(Record) error) error
}
