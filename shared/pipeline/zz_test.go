package pipeline_test
import ("testing";"testing/fstest";"fmt"
"github.com/tidemark-data/tidemark/schemas"
"github.com/tidemark-data/tidemark/shared/pipeline")
func TestZZ(t *testing.T){
 for name, y := range map[string]string{
  "empty": "", "comment": "# x\n", "null": "~", "list": "- a", "scalar":"5",
  "nan": "pipeline: a\ndestination: {dataset: d}\ndefaults: {batch_rows: .nan}\n",
  "inf": "pipeline: a\ndestination: {dataset: d}\ndefaults: {batch_rows: .inf}\n",
  "huge": "pipeline: a\ndestination: {dataset: d}\ndedup: {every: 1m, max_bytes: 99999999999999999999}\n",
  "u64": "pipeline: a\ndestination: {dataset: d}\ndedup: {every: 1m, max_bytes: 9999999999999999999}\n",
  "float": "pipeline: a\ndestination: {dataset: d}\ndefaults: {batch_rows: 1e3}\n",
  "multi": "pipeline: a\ndestination: {dataset: d}\n---\npipeline: b\ndestination: {dataset: d}\n",
  "merge": "pipeline: a\ndestination: {dataset: d}\ndefaults: &d {every: 1m}\ntables: [{<<: *d, name: x, capture: {method: watermark, cursor: c}}]\n",
  "daily": "pipeline: a\ndestination: {dataset: d}\ndefaults: {every: '@daily'}\n",
  "every": "pipeline: a\ndestination: {dataset: d}\ndefaults: {every: '@every 60s'}\n",
  "tz": "pipeline: a\ndestination: {dataset: d}\ndefaults: {every: 'CRON_TZ=Asia/Tokyo 0 0 * * *'}\n",
  "never": "pipeline: a\ndestination: {dataset: d}\ndefaults: {every: '0 0 30 2 *'}\n",
  "baddefault": "pipeline: a\ndestination: {dataset: d}\ndefaults: {every: nope}\ntables: [{name: x, capture: {method: watermark, cursor: c}}, {name: y, capture: {method: watermark, cursor: c}}]\n",
  "norway": "pipeline: no\ndestination: {dataset: 1}\n",
  "octal": "pipeline: a\ndestination: {dataset: d}\ndefaults: {batch_rows: 0o17}\n",
  "badalias": "pipeline: *x\n", "tab": "pipeline: a\n\tb: c\n", "customtag": "pipeline: !!int x\ndestination: {dataset: d}\n",
  "binary": "pipeline: !!binary eA==\ndestination: {dataset: d}\n",
  "date": "pipeline: a\ndestination: {dataset: 2024}\ntenants: {query: 2024-01-01, column: c, dataset: 'x_{y}'}\n",
  "lookback": "pipeline: a\ndestination: {dataset: d}\ntables: [{name: x, capture: {method: watermark, cursor: c, lookback: 99999999999999h}}]\n",
  "lookback0": "pipeline: a\ndestination: {dataset: d}\ntables: [{name: x, capture: {method: watermark, cursor: c, lookback: 0s}}]\n",
  "numkeys": "1: x\ntrue: y\n? [a, b]\n: c\n",
 } {
  func(){ defer func(){ if r:=recover(); r!=nil { fmt.Println(name,"PANIC",r)}}()
  p, err := pipeline.Load(fstest.MapFS{"a.yaml": {Data: []byte(y)}}, schemas.PipelineSchema())
  fmt.Printf("%s: %+v ERR %v\n", name, p, err) }()
 }
}
func TestZZRec(t *testing.T){
  p, err := pipeline.Load(fstest.MapFS{"a.yaml": {Data: []byte("tables: &a [*a]\n")}}, schemas.PipelineSchema())
  fmt.Println(p,err)
}
