[inputs: ["{mix,.formatter}.exs", "{lib,test,bench,docs}/**/*.{ex,exs}"]]
