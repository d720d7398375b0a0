[inputs: ["{mix,.formatter}.exs", "{lib,test,bench,docs,examples}/**/*.{ex,exs}"]]
