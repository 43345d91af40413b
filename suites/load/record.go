package load

// How a request ended.
const (
	OK         = "ok"
	Failed     = "error"      // refused, or an error in the stream
	TimedOut   = "timeout"    // nothing came for too long
	Cancelled  = "cancelled"  // by the user, or because the cell was over
	Incomplete = "incomplete" // the stream ended before the answer did
)

// Record is what happened to one request. Times are nanoseconds after the
// cell's start, -1 for what never happened; counts are -1 where nobody said.
type Record struct {
	Index    int    // in the schedule
	Worker   int    // closed loop: which of the concurrent ones
	Endpoint int    // index of the endpoint that answered
	Pool     string // short, long or shared, in a dual-pool cell
	Warmup   bool

	Intended       int64 // open loop: the scheduled time; closed loop: when its worker was free
	Start          int64 // the request was begun
	Sent           int64 // its last byte was written
	Headers        int64 // the response's headers were in
	FirstByte      int64 // first byte of the body
	FirstChoice    int64 // first chunk with choices, even an empty one
	FirstRole      int64 // first chunk without text
	FirstReasoning int64 // first reasoning text
	FirstContent   int64 // first content
	FirstTool      int64 // first part of a tool call
	FirstText      int64 // first of the latter three: the first token
	LastText       int64 // last chunk with text: the last token
	End            int64 // the answer was over

	Gaps   []int32 // microseconds between successive chunks with text
	Tokens []int32 // tokens of each chunk with text, where the server counts as it goes
	Chunks int     // with text

	ISLTarget, OSLTarget   int
	ISL, OSL               int // as the server counted
	Reasoning, CachedInput int
	Status                 string
	HTTP                   int
	Finish                 string
	Error                  string
	Retries                int
	PromptSHA              string

	SendLag int64 // from Intended to Start
	ReadLag int64 // largest from the server's own stamp to the arrival; -1 where the server stamps nothing
}

func newRecord(i int, r Request) *Record {
	return &Record{
		Index: i, Start: -1, Sent: -1, Headers: -1, FirstByte: -1, FirstChoice: -1, FirstRole: -1, FirstReasoning: -1,
		FirstContent: -1, FirstTool: -1, FirstText: -1, LastText: -1, End: -1,
		ISLTarget: r.ISL, OSLTarget: r.OSL, ISL: -1, OSL: -1, Reasoning: -1, CachedInput: -1, ReadLag: -1,
	}
}
